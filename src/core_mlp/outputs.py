"""Outputs that are there whole, or not at all; one process at a time."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from core_mlp.errors import InputError


@contextmanager
def replacing(path: Path, *write_errors: type[Exception]) -> Iterator[Path]:
    """Gives a place to write an output to, and puts it there if the block ends well.

    It is written into a folder beside it, `NAME.partial`, and renamed: an interruption
    leaves no half of it under its own name, and what was there before stays until then.

    Args:
      path: Of the output, a file or a folder.
      write_errors: Exceptions of a library by which it says that it cannot write.

    Yields:
      A path of the same name, at which there is nothing yet.

    Raises:
      InputError: On one of `write_errors`.
      OSError: If it cannot be written.
    """
    scratch = path.with_name(f"{path.name}.partial")
    try:
        if scratch.exists():  # Of a run that was killed.
            shutil.rmtree(scratch)
        scratch.mkdir(parents=True)
        yield scratch / path.name
        # To rename replaces a file, but not a folder.
        if path.is_dir():
            path.rename(scratch / "replaced")
        (scratch / path.name).rename(path)
    except write_errors as error:
        problem = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: cannot be written: {problem}") from error
    except OSError as error:
        # An error while writing has no name; others have that of the place beside.
        if error.errno and str(error.filename or scratch).startswith(str(scratch)):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def exclusive(path: Path, work: str) -> Iterator[None]:
    """Lets one process at a time do some work; others say so, and wait.

    Args:
      path: A file that is there while a process is at work.
      work: Of the message: what another process does.

    Raises:
      OSError: If the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"Waiting for another process that {work}", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        # Those who wait for it notice that it is gone, and make a new one.
        path.unlink(missing_ok=True)
        lock.release()
