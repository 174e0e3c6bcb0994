"""Atomic writes, process locks, and JSON and CSV with reproducible bytes."""

import csv
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from ruamel.yaml import YAML

from core_mlp.pipeline.stage import InputError, first_line

# Decimals of every number written: beyond what any of our test sets can resolve.
DECIMALS = 6


@contextmanager
def atomic_output(path: Path, *write_errors: type[Exception]) -> Iterator[Path]:
    """Writes a file or folder completely or not at all.

    The block writes into a folder beside the output, `NAME.partial`. If it succeeds,
    the result is renamed to `path`; until then, the previous output stays in place.

    Args:
      path: The output, a file or a folder.
      write_errors: Exceptions by which a library reports that it cannot write; they
        become an InputError.

    Yields:
      The path to write to, where nothing exists yet.
    """
    scratch = path.with_name(f"{path.name}.partial")
    try:
        if scratch.exists():  # Left behind by a run that was killed.
            shutil.rmtree(scratch)
        scratch.mkdir(parents=True)
        yield scratch / path.name
        # A rename replaces a file, but not a folder.
        if path.is_dir():
            path.rename(scratch / "replaced")
        (scratch / path.name).rename(path)
    except write_errors as error:
        raise InputError(f"{path}: cannot be written: {first_line(error)}") from error
    except OSError as error:
        # A failed write has no file name, or that of the scratch folder.
        if error.errno and str(error.filename or scratch).startswith(str(scratch)):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def process_lock(path: Path, work: str) -> Iterator[None]:
    """Runs the block in one process at a time; others say for what work they wait."""
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


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes a CSV with Unix line ends, floats rounded to six decimals."""
    with (
        atomic_output(path) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_rounded(value) for value in row] for row in rows)


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8."""
    with atomic_output(path) as partial:
        partial.write_text(text, encoding="utf-8")


def parse_yaml(text: str | bytes) -> Any:
    """Parses YAML as DVC does, so that stages use the values that dvc.lock has."""
    return YAML(typ="safe", pure=True).load(text)


def sha256(path: Path | str) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    # hashlib.file_digest would take twice as long for a small file.
    with open(path, "rb", buffering=0) as file:
        while block := file.read(2**16):
            digest.update(block)
    return digest.hexdigest()


def _rounded(value: Any) -> Any:
    """Rounds a Python or NumPy float, and those in a dict; returns others unchanged."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    is_float = isinstance(value, (float, np.floating))
    return round(float(value), DECIMALS) if is_float else value
