"""Do the results of a run agree with each other?

Results are files in Git, and files can be edited. dvc.lock has the hash of each, and
most numbers are in two files, so an edit of only one is found here. CI recomputes the
rest; see docs/reports.md.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

from core_mlp.evaluation import metrics
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import DECIMALS
from core_mlp.reporting.significance import Summary, summarize

if TYPE_CHECKING:
    from core_mlp.reporting.runs import Run, SeedRun

# Numbers are rounded when they are written, and so are those computed from them here.
TOLERANCE = 2 * 10.0**-DECIMALS
# Probability below which a run's distance from the mean of the seeds is refused.
IMPROBABLE = 1e-3
TRAIN = "metrics/train.json"
EVALUATE = "metrics/evaluate.json"
SEEDS = "metrics/seeds.json"
SEED_ROWS = "plots/seeds.csv"


def check(run: Run) -> None:
    """Raises InputError if results of a run contradict each other, naming the first."""
    for check_part, command in (
        (_check_training, "dvc repro --force"),
        (_check_test, "dvc repro --force"),
        (_check_mistakes, "dvc repro --force"),
        (_check_seeds, "core-mlp seeds N --replace"),
        (_check_seed_rows, f"rm {SEED_ROWS}"),
    ):
        for problem in check_part(run):
            raise InputError(
                f"{run.name}: its results contradict each other: {problem}; run "
                f"`{command}`"
            )


def check_hashes(
    name: str, contents: Mapping[str, bytes], hashes: Mapping[str, str]
) -> None:
    """Raises InputError if a result is not the one that dvc.lock describes.

    Args:
      name: That of the run.
      contents: What was read, by path.
      hashes: MD5 of each output in dvc.lock, by path.
    """
    for path, content in contents.items():
        if path in hashes and hashlib.md5(content).hexdigest() != hashes[path]:
            raise InputError(
                f"{name}: {path} is not the one in dvc.lock: run `dvc repro`"
            )


def _check_training(run: Run) -> Iterator[str]:
    """Compares metrics/train.json with plots/history.csv and the parameters."""
    epochs = {row.epoch: row for row in run.history}
    kept = run.metrics["train_epochs"]
    numbers = [row.epoch for row in run.history]
    if numbers != [*range(1, len(numbers) + 1)] or kept not in epochs:
        yield f"{TRAIN} has train_epochs = {kept:g}, plots/history.csv another"
        return
    for name in (
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
    ):
        if name in run.metrics and not _is_equal(
            run.metrics[name], getattr(epochs[kept], name)
        ):
            yield f"{TRAIN} and plots/history.csv differ in {name}"
    limit = run.params.get("epochs", len(epochs))
    patience = run.params.get("patience")
    # With patience, the best epoch is kept, and training ends when so many were not
    # better. Without, all epochs are trained, and the last is kept.
    if patience:
        best = max(row.validation_accuracy for row in run.history)
        is_kept = epochs[kept].validation_accuracy == best
        limit = min(limit, kept + patience)
    else:
        is_kept = kept == len(epochs)
    if not is_kept:
        yield f"{TRAIN} has train_epochs = {kept:g}, plots/history.csv another"
    if len(epochs) != limit:
        yield (
            f"plots/history.csv has {len(epochs)} epochs, params.yaml gives {limit:g}"
        )


def _check_test(run: Run) -> Iterator[str]:
    """Compares metrics/evaluate.json with what the CSVs of evaluate add up to."""
    names = run.class_names
    counts = np.array([[run.confusion.get((a, p), 0) for p in names] for a in names])
    if counts.sum() != run.count or not run.count or (counts < 0).any():
        yield "plots/confusion.csv lacks the pair of a class with itself"
        return
    accuracy = metrics.proportion(int(np.trace(counts)), run.count)
    for suffix, expected in zip(("", "_low", "_high"), accuracy, strict=True):
        name = f"test_accuracy{suffix}"
        if not _is_equal(run.metrics[name], expected):
            yield (
                f"{EVALUATE} has {name} = {run.metrics[name]}, plots/confusion.csv "
                f"gives {round(expected, DECIMALS)}"
            )
    expected_rows = {row.label: row for row in metrics.class_accuracies(counts, names)}
    if expected_rows.keys() != {row.label for row in run.classes}:
        yield "plots/per_class.csv and plots/confusion.csv have different classes"
        return
    balanced = np.mean([row.accuracy for row in expected_rows.values()])
    # Earlier versions did not write it.
    if not _is_equal(run.metrics.get("test_balanced_accuracy", balanced), balanced):
        yield f"{EVALUATE} and plots/per_class.csv differ in balanced accuracy"
    for row in run.classes:
        if not _is_equal(row[1:], expected_rows[row.label][1:]):
            yield (
                "plots/per_class.csv and plots/confusion.csv differ about class "
                f"{row.label}"
            )
    if sum(b.count for b in run.calibration) != run.count:
        yield "plots/calibration.csv and plots/confusion.csv differ in image count"
    elif not _is_equal(
        run.metrics["test_calibration_error"],
        metrics.calibration_error(run.calibration),
    ):
        yield f"{EVALUATE} and plots/calibration.csv differ in calibration error"


def _check_mistakes(run: Run) -> Iterator[str]:
    """Compares plots/mistakes.csv with plots/confusion.csv."""
    pairs = Counter((m.label, m.predicted) for m in run.mistakes.values())
    expected = {p: n for p, n in run.confusion.items() if n and p[0] != p[1]}
    if pairs != expected:
        yield "plots/mistakes.csv and plots/confusion.csv have different mistakes"


def _check_seeds(run: Run) -> Iterator[str]:
    """Checks metrics/seeds.json, and compares it with a run of the same settings."""
    if run.seeds is None:
        return
    results = run.seeds.runs
    numbers = [result.seed for result in results]
    if missing := [r.seed for r in results if "test_accuracy" not in r.metrics]:
        yield f"seed {missing[0]} in {SEEDS} has no test_accuracy"
        return
    if len(set(numbers)) < len(numbers):
        yield f"{SEEDS} has the same seed twice"
    for name, summary in run.seeds.summary.items():
        values = [r.metrics[name] for r in results if name in r.metrics]
        # Earlier versions wrote a 95 % interval for any number of seeds.
        expected = [summarize(values), summarize(values, level=0.05)]
        if len(values) < len(results) or not any(
            _is_equal(_without_none(summary), _without_none(e)) for e in expected
        ):
            yield f"the summary of {name} in {SEEDS} is not that of its runs"
    for result in results:
        if problem := _range_problem(result):
            yield f"seed {result.seed} in {SEEDS}: {problem}"
    if run.seeds.identity == run.identity:
        yield from _compare_with_seeds(run, results)


def _check_seed_rows(run: Run) -> Iterator[str]:
    """Compares plots/seeds.csv with metrics/seeds.json."""
    if run.seeds is None or run.seed_rows is None:
        return
    expected_rows = run.seeds.rows()
    if [row[:2] for row in run.seed_rows] != [row[:2] for row in expected_rows]:
        yield f"{SEED_ROWS} and {SEEDS} have different seeds or metrics"
        return
    for found, expected in zip(run.seed_rows, expected_rows, strict=True):
        if not np.allclose(
            found[2:], expected[2:], rtol=0.0, atol=TOLERANCE, equal_nan=True
        ):
            yield (
                f"{SEED_ROWS} and {SEEDS} differ in {found.metric} of seed {found.seed}"
            )


def _without_none(summary: Summary) -> list[float]:
    return [value for value in summary if value is not None]


def _range_problem(result: SeedRun) -> str | None:
    """Returns a value that no training run can have, if there is one."""
    for name, value in [*result.metrics.items(), *result.classes.items()]:
        is_loss = name in result.metrics and name.endswith("loss")
        if value < 0.0 or (value > 1.0 and not is_loss):
            return f"{name} = {value:g}"
    return None


def _compare_with_seeds(run: Run, results: Sequence[SeedRun]) -> Iterator[str]:
    """Compares the run with the results of all seeds of its settings.

    References:
      The prediction interval of a further observation, with the sampling noise of the
      test images added, since few seeds may agree by chance.
    """
    shares = {row.label: row.count / run.count for row in run.classes}
    for result in results:
        if result.classes.keys() != shares.keys():  # Some are missing.
            continue
        by_class = sum(shares[name] * value for name, value in result.classes.items())
        if not _is_equal(by_class, result.metrics["test_accuracy"]):
            yield (
                f"seed {result.seed} in {SEEDS} has a different test_accuracy than "
                "its classes give"
            )
    accuracies = [result.metrics["test_accuracy"] for result in results]
    own, summary = run.metrics["test_accuracy"], summarize(accuracies)
    sampling = summary.mean * (1.0 - summary.mean) / run.count
    error = math.sqrt(summary.sd**2 * (1.0 + 1.0 / len(results)) + sampling)
    if error == 0.0:
        return
    p_value = 2.0 * stats.t.sf(abs(own - summary.mean) / error, len(results) - 1)
    if p_value < IMPROBABLE:
        yield (
            f"{EVALUATE} has test_accuracy = {own}, which is improbable (p < "
            f"{IMPROBABLE:g}) with the mean {summary.mean:.4f} and the standard "
            f"deviation {summary.sd:.4f} of {SEEDS}"
        )


def _is_equal(
    found: float | Sequence[float], expected: float | Sequence[float]
) -> bool:
    if np.shape(found) != np.shape(expected):
        return False
    return bool(np.allclose(found, expected, rtol=0.0, atol=TOLERANCE))
