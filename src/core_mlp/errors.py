"""What a user can put right: one line on stderr instead of a traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(Exception):
    """A parameter, a file or a dataset from outside is not usable.

    The message is one line: what was wrong, where, and what is allowed.
    """


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
