"""Deterministic writers of metrics and plots: the same values give the same bytes."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core_mlp.outputs import replacing

# Digits after the point: below what any of our test sets can resolve, and few enough
# to read.
DIGITS = 6


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes a mapping as JSON, one key a line, floats rounded."""
    text = json.dumps(_round(values), indent=2)
    with replacing(path) as partial:
        partial.write_text(f"{text}\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Writes a header and rows as CSV with Unix line ends, floats rounded."""
    with (
        replacing(path) as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_round(value) for value in row] for row in rows)


def _round(value: Any) -> Any:
    """Rounds a float of Python or NumPy, and those in a dict; leaves others alone."""
    if isinstance(value, dict):
        return {key: _round(item) for key, item in value.items()}
    is_float = isinstance(value, (float, np.floating))
    return round(float(value), DIGITS) if is_float else value
