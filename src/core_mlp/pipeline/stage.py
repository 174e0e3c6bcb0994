"""Stage entry point: one-line user errors; exits with DVC."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from core_mlp.pipeline.text import print_any_text, visible

PARENT_CHECK_SECONDS = 0.2


class InputError(Exception):
    """A parameter, a file or a dataset that the user provided cannot be used.

    The message is one line: what is wrong, where, and what is allowed.
    """


def first_line(error: Exception) -> str:
    r"""Returns the first line of an error's message, or its type if there is none.

    >>> first_line(ValueError("No.\nNever.")), first_line(ValueError())
    ('No.', 'ValueError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def run_stage(main: Callable[[], None]) -> None:
    """Runs a stage as a process that ends when DVC does, and records what it ran with.

    `stages/__init__.py` has set `$PARENT_PID`, before the imports during which DVC may
    have been killed.
    """
    # Imported here because they import InputError from this module.
    from core_mlp.pipeline.environment import find_warnings, used_lock
    from core_mlp.pipeline.provenance import recorded

    parent = int(os.environ["PARENT_PID"])
    threading.Thread(target=exit_with_parent, args=[parent], daemon=True).start()
    print_any_text()
    for line in find_warnings(os.environ, used_lock()):
        print(line, flush=True)
    with exit_on_input_error(), recorded(Path(sys.argv[0]).stem):
        main()


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turns errors that the user can fix into one line and exit code 1.

    These are InputError, errors of the file system, and Ctrl-C. Any other exception is
    a bug and keeps its traceback.
    """
    try:
        yield
    except InputError as error:
        sys.exit(visible(f"error: {error}"))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(visible(f"error: {where}{error.strerror or error}"))
    except KeyboardInterrupt:
        sys.exit("error: interrupted")


def exit_with_parent(parent: int) -> None:
    """Ends this process once its parent has ended, so that no orphan keeps writing."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)
