"""Atomic writes, process locks, and JSON and CSV with reproducible bytes."""

import fcntl
import glob
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from core_mlp.pipeline.errors import InputError, first_line

# Decimals of every number written: more than any of our test sets can resolve.
DECIMALS = 6
# Name of the lock file in a scratch folder; its writer holds the lock.
LOCK_NAME = ".lock"
# Replaces the bracket of `<script`, `</script` or `<!--`; it looks alike.
OTHER_BRACKET = "\u2039"
SCRIPT_TAG = re.compile(r"<(?=/?script|!--)", re.IGNORECASE)


@contextmanager
def atomic_output(path: Path, *write_errors: type[Exception]) -> Iterator[Path]:
    """Writes a file or folder completely or not at all.

    The block writes into a scratch folder beside the output, `NAME.*.partial`. If it
    succeeds, the result is renamed to `path`; until then, the previous output stays in
    place. Several processes may write the same output at once: the last one wins.

    Args:
      path: The output, a file or a folder.
      write_errors: Exceptions by which a library reports that it cannot write; they
        become an InputError.

    Yields:
      The path to write to, where nothing exists yet.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_abandoned(path)
    scratch, lock = _make_scratch(path)
    try:
        yield scratch / path.name
        # A rename replaces a file, but not a folder.
        if path.is_dir():
            path.rename(scratch / "replaced")
        (scratch / path.name).rename(path)
    except write_errors as error:
        raise InputError(f"{path}: cannot be written: {first_line(error)}") from error
    except OSError as error:
        # A failed write names no file, or one in the scratch folder.
        if error.errno and str(error.filename or scratch).startswith(str(scratch)):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.close()


def _make_scratch(path: Path) -> tuple[Path, IO[bytes]]:
    """Creates a scratch folder beside an output, with a file that this process locks.

    The kernel releases the lock when the process ends, however it ends.
    """
    try:
        hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        lock = (hidden / LOCK_NAME).open("wb")
    except OSError as error:
        error.filename = str(path)
        raise
    # On a file system without locks, abandoned folders are never deleted.
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_EX)
    # `_delete_abandoned` in another process must not see it before it is locked.
    scratch = hidden.with_name(f"{hidden.name[1:]}.partial")
    hidden.rename(scratch)
    return scratch, lock


def _delete_abandoned(path: Path) -> None:
    """Deletes the scratch folders of an output whose processes were killed."""
    name = glob.escape(path.name)
    for scratch in [
        *path.parent.glob(f"{name}.*.partial"),
        *path.parent.glob(f"{name}.partial"),  # Left by earlier versions.
    ]:
        # An OSError means: locked by a live process, or just deleted by another one.
        with suppress(OSError), (scratch / LOCK_NAME).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def process_lock(path: Path, work: str) -> Iterator[None]:
    """Runs the block in one process at a time; others print what they wait for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        print(f"Waiting for another process that is {work}", flush=True)
        held = lock.acquire()
    with held:
        yield


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a dict as JSON, one key per line, floats rounded to six decimals."""
    write_text(path, json.dumps(_rounded(values), indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[tuple], row_type: type[tuple]) -> None:
    """Writes a CSV with Unix line ends, floats rounded to six decimals.

    Does not use the csv module: which fields it quotes depends on Python's version.

    Args:
      path: The file.
      rows: The rows.
      row_type: Named tuple whose fields are the columns; see `core_mlp.results`. A
        field that has its default in all rows is left out.
    """
    rows = list(rows)
    defaults = row_type._field_defaults
    columns = [
        column
        for column, name in enumerate(row_type._fields)
        if name not in defaults or any(row[column] != defaults[name] for row in rows)
    ]
    with (
        atomic_output(path) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        for row in [row_type._fields, *rows]:
            file.write(",".join(_csv_field(row[column]) for column in columns) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")


def parse_yaml(text: str | bytes) -> Any:
    """Parses YAML as DVC does, so that stages use the values in dvc.lock."""
    return YAML(typ="safe", pure=True).load(text)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file that is a mapping of keys to values.

    Raises:
      InputError: If it is not. The message names the file and, if known, the line.
    """
    content = path.read_bytes()
    try:
        values = parse_yaml(content.decode("utf-8"))
    # Besides YAMLError the parser lets through whatever its parts raise: ValueError for
    # an impossible date, IndexError for an empty !!int, RecursionError, and so on.
    except Exception as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise InputError(f"{path}{where}: not valid YAML: {problem}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a mapping of keys to values")
    return values


def canonical_json(value: Any) -> str:
    """Returns JSON that is the same for equal values: 0 and 0.0 are one number.

    >>> canonical_json({"b": 0.0, "a": [1.0]}), canonical_json({"a": [1], "b": 0})
    ('{"a": [1], "b": 0}', '{"a": [1], "b": 0}')
    """
    return json.dumps(_canonical(value), sort_keys=True, default=str)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def sha256(path: Path | str) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    # hashlib.file_digest would take twice as long for a small file.
    with open(path, "rb", buffering=0) as file:
        while block := file.read(2**16):
            digest.update(block)
    return digest.hexdigest()


def _csv_field(value: Any) -> str:
    r"""Returns a value as a field of a CSV.

    DVC copies the CSVs of plots/ verbatim into a script on its page. Text that would
    end this script, or begin another, is made harmless by replacing its bracket.

    >>> [_csv_field(value) for value in ("a, b", "c\rd", "e", 0.25, "2 < 3")]
    ['"a, b"', '"c\rd"', 'e', '0.25', '2 < 3']
    """
    text = SCRIPT_TAG.sub(OTHER_BRACKET, str(_rounded(value)))
    if any(character in text for character in ',"\r\n'):
        quoted = text.replace('"', '""')
        return f'"{quoted}"'
    return text


def _rounded(value: Any) -> Any:
    """Rounds a Python or NumPy float, or those in a dict; returns all else as it is."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    is_float = isinstance(value, (float, np.floating))
    return round(float(value), DECIMALS) if is_float else value
