"""Errors that the user can fix, as one line."""

import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from core_mlp.pipeline.text import visible


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


@contextmanager
def exit_on_input_error() -> Iterator[None]:
    """Turns errors that the user can fix into one line and exit code 1.

    These are InputError, errors of the file system or of DVC's databases (such as a
    full disk), and Ctrl-C. Any other exception is a bug and keeps its traceback. For
    entry points; the library raises.
    """
    try:
        yield
    except InputError as error:
        sys.exit(visible(f"error: {error}"))
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(visible(f"error: {where}{error.strerror or error}"))
    except sqlite3.Error as error:
        sys.exit(visible(f"error: DVC's database: {error}"))
    except KeyboardInterrupt:
        sys.exit("error: interrupted")
