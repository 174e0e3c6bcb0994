"""How a stage ends: on bad input in one line, and never without DVC."""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PARENT_CHECK_SECONDS = 0.2


class InputError(Exception):
    """A parameter, a file or a dataset from outside is not usable.

    The message is one line: what was wrong, where, and what is allowed.
    """


def run_stage(main: Callable[[], None]) -> None:
    """Runs a stage as a process: on bad input one line, and its end if DVC is killed.

    dvc.yaml sets `$PARENT_PID`, as DVC may have been killed during the imports.

    Args:
      main: The stage.
    """
    if parent := os.environ.get("PARENT_PID"):
        threading.Thread(target=_end_with, args=[int(parent)], daemon=True).start()
    with exit_on_bad_input():
        _check_temporary_folder()
        main()


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Ends the process with one line and exit code 1 on bad input.

    So it does on an error of the file system and on Ctrl-C. Any other exception is a
    fault of ours and keeps its traceback.
    """
    try:
        yield
    except InputError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"error: {where}{error.strerror or error}")
    except KeyboardInterrupt:
        sys.exit("error: interrupted")


def _check_temporary_folder() -> None:
    """Raises OSError unless there is room in it.

    Without, TensorFlow's AutoGraph goes on with a warning, and fails in odd ways.
    """
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(2**14))
    except OSError as error:
        error.filename = tempfile.gettempdir()
        raise


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, so that no second one meets it."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_SECONDS)
    os._exit(1)
