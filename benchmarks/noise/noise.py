"""Measures on real training runs how much seeds differ, and what is made of that.

    python benchmarks/noise/noise.py

Reads default.json, the seeds 1 to 40 of the default parameters, and epochs_20.json, the
seeds 1 to 20 with 20 epochs, both written by `core-mlp seeds`. Writes results.json.
Takes about two minutes. decide.py simulates the same with many more pairs.
"""

import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np

from core_mlp.reporting import gate
from core_mlp.reporting.comparison import Comparison, compare_seeds
from core_mlp.reporting.git import reader, run_git
from core_mlp.reporting.runs import SeedRun, Seeds
from core_mlp.reporting.significance import LOOKS, adjust_p_values, summarize

FOLDER = Path(__file__).parent
NUM_SPLITS = 2000


def read(name: str | Path) -> list[SeedRun]:
    return Seeds.model_validate_json((FOLDER / name).read_bytes()).runs


def accuracies(runs: list[SeedRun]) -> list[float]:
    return [run.metrics["test_accuracy"] for run in runs]


def summary(runs: list[SeedRun]) -> dict:
    values = summarize(accuracies(runs))._asdict()
    return {name: round(value, 6) for name, value in values.items()}


def compare(old: list[SeedRun], new: list[SeedRun], look: int) -> Comparison:
    metrics, classes = compare_seeds(old[:look], new[:look])
    return Comparison("compared", metrics=metrics, classes=classes)


def findings(comparison: Comparison, rules: gate.Gate) -> set[str]:
    """Returns what the comparison of two equal settings says, each in a word or two."""
    found = {comparison.verdict("test_accuracy", rules.max_accuracy_loss)}
    if found & {"better", "worse"}:
        found.add("better or worse")
    differences = comparison.classes.values()
    p_values = adjust_p_values([d.p_value for d in differences])
    if any(p < d.level for p, d in zip(p_values, differences, strict=True)):
        found.add("a class better or worse")
    for result in (
        gate.check_accuracy(rules.max_accuracy_loss, comparison),
        gate.check_classes(rules.max_class_loss, comparison),
    ):
        found.add(f"{result.rule}: {result.outcome}")
    return found


def findings_by_look(runs: list[SeedRun], rules: gate.Gate) -> dict:
    """Splits seeds of one setting into two random sides, again and again.

    Returns:
      The share of splits with each finding, at each look and at any look.
    """
    rng = np.random.default_rng(0)
    counts = {f"{look} seeds per side": Counter() for look in LOOKS}
    at_any_look = Counter()
    for _ in range(NUM_SPLITS):
        order = rng.permutation(len(runs))
        old, new = (
            [runs[i] for i in side] for side in np.split(order, [len(runs) // 2])
        )
        found_before = set()
        for look, counter in zip(LOOKS, counts.values(), strict=True):
            found = findings(compare(old, new, look), rules)
            counter.update(found)
            found_before |= found
        at_any_look.update(found_before)
    counts["at any look"] = at_any_look
    return {
        look: {name: round(counter[name] / NUM_SPLITS, 4) for name in sorted(counter)}
        for look, counter in counts.items()
    }


def describe(old: list[SeedRun], new: list[SeedRun], margin: float) -> dict:
    """Returns what the comparison of two settings says at each look."""
    by_look = {}
    for look in LOOKS:
        difference = compare(old, new, look).metrics["test_accuracy"]
        low, high = difference.interval()
        by_look[f"{look} seeds per side"] = {
            "verdict": difference.verdict(margin),
            "difference": round(difference.value, 6),
            "low": round(low, 6),
            "high": round(high, 6),
            "p_value": round(difference.p_value, 6),
        }
    return by_look


def far_apart(runs: list[SeedRun], margin: float) -> float:
    """Returns the share of pairs of seeds that differ by more than the margin."""
    pairs = itertools.combinations(accuracies(runs), 2)
    # Differences of rounded numbers are not exact.
    return round(float(np.mean([abs(a - b) > margin + 1e-9 for a, b in pairs])), 4)


def models_scored() -> int:
    """Returns how many models MNIST's test split has scored, as far as files know."""
    recipes = sorted(Path("recipes").glob("mnist_*.json"))
    names = ["default.json", "epochs_20.json", *map(Path.absolute, recipes)]
    runs = [run for name in names for run in read(name)]
    results = {(run.metrics["test_accuracy"], run.metrics["test_loss"]) for run in runs}
    for path in ("metrics/evaluate.json", "metrics/seeds.json", *recipes):
        for commit in run_git("log", "--format=%H", "--", path).decode().split():
            content = json.loads(reader(commit)(path) or "{}")
            for run in content.get("runs", [{"metrics": content}]):
                metrics = run["metrics"]
                results.add((metrics.get("test_accuracy"), metrics.get("test_loss")))
    return len(results)


def main() -> None:
    rules = gate.load(None)
    margin = rules.max_accuracy_loss
    default, longer = read("default.json"), read("epochs_20.json")
    correlations = {
        "test accuracy at equal seeds, default and epochs 20": (
            accuracies(default[:20]),
            accuracies(longer),
        ),
        "validation and test accuracy of a model": (
            [run.metrics["validation_accuracy"] for run in default],
            accuracies(default),
        ),
    }
    results = {
        "default, seeds 1 to 40": summary(default),
        "default, seeds 1 to 20": summary(default[:20]),
        "default, seeds 21 to 40": summary(default[20:]),
        "epochs 20, seeds 1 to 20": summary(longer),
        "two seeds differ by more than the margin": far_apart(default, margin),
        "same setting": findings_by_look(default, rules),
        "seeds 1 to 20 against 21 to 40": describe(default[:20], default[20:], margin),
        "epochs 20 against default": describe(default[:20], longer, margin),
        "correlation": {
            name: round(np.corrcoef(*sides)[0, 1], 4)
            for name, sides in correlations.items()
        },
        "models that the test split has scored": models_scored(),
        "best of 20 seeds minus their mean": round(
            max(accuracies(default[:20])) - np.mean(accuracies(default[:20])), 6
        ),
    }
    text = json.dumps(results, indent=2)
    (FOLDER / "results.json").write_text(f"{text}\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
