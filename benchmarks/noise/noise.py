"""Measures on real training runs how often report and gate are wrong.

    python benchmarks/noise/noise.py

Reads default.json, the seeds 1 to 40 of the default parameters, and epochs_20.json, the
seeds 1 to 20 with 20 epochs, both written by `core-mlp seeds`. Writes results.json.
"""

import json
from pathlib import Path

import numpy as np

from core_mlp.reporting import gate
from core_mlp.reporting.comparison import Comparison, compare_seeds
from core_mlp.reporting.git import reader, run_git
from core_mlp.reporting.runs import Seeds
from core_mlp.reporting.significance import (
    adjust_p_values,
    difference_of_means,
    summarize,
)

FOLDER = Path(__file__).parent
NUM_SPLITS = 2000
SIZES = [(20, 20), (10, 10), (5, 5), (20, 1)]


def read(name: str | Path) -> list:
    return Seeds.model_validate_json((FOLDER / name).read_bytes()).runs


def accuracies(runs: list) -> list[float]:
    return [run.metrics["test_accuracy"] for run in runs]


def summary(runs: list) -> dict:
    values = summarize(accuracies(runs))._asdict()
    return {name: round(value, 6) for name, value in values.items()}


def compare(old: list, new: list) -> Comparison:
    metrics, classes = compare_seeds(old, new)
    return Comparison("compared", metrics=metrics, classes=classes)


def error_rates(runs: list, sizes: tuple[int, int], rules: gate.Gate) -> dict:
    """Splits seeds of one setting into two random sides, again and again."""
    rng = np.random.default_rng(0)
    counts = dict.fromkeys(
        ["better or worse", "equivalent", "not decided", "a class significant"], 0
    )
    outcomes = {"pass": 0, "fail": 0, "investigate": 0}
    for _ in range(NUM_SPLITS):
        order = rng.permutation(len(runs))
        old = [runs[i] for i in order[: sizes[0]]]
        new = [runs[i] for i in order[sizes[0] : sum(sizes)]]
        comparison = compare(old, new)
        verdict = comparison.metrics["test_accuracy"].verdict(rules.max_accuracy_loss)
        counts["better or worse" if verdict in ("better", "worse") else verdict] += 1
        p_values = [d.p_value for d in comparison.classes.values()]
        adjusted = adjust_p_values(p_values) if p_values else [1.0]
        counts["a class significant"] += min(adjusted) < 0.05
        results = [
            gate.check_accuracy(rules.max_accuracy_loss, comparison).outcome,
            gate.check_classes(rules.max_class_loss, comparison).outcome,
        ]
        worst = min(results, key=("fail", "investigate", "pass").index)
        outcomes[worst] += 1
    counts |= {f"gate: {outcome}": number for outcome, number in outcomes.items()}
    return {name: round(number / NUM_SPLITS, 4) for name, number in counts.items()}


def unequal_spread(old: int, new: int, ratio: float, margin: float) -> dict:
    """Simulates two settings of equal mean; the new one varies more or less."""
    rng = np.random.default_rng(0)
    counts = {"better or worse": 0, "gate: fail": 0}
    sd = summarize(accuracies(read("default.json"))).sd
    for _ in range(NUM_SPLITS):
        low, high = difference_of_means(
            rng.normal(0.0, sd, old), rng.normal(0.0, ratio * sd, new)
        ).interval()
        counts["better or worse"] += low > 0 or high < 0
        counts["gate: fail"] += high < -margin
    return {name: round(number / NUM_SPLITS, 4) for name, number in counts.items()}


def describe(old: list, new: list, margin: float) -> dict:
    difference = compare(old, new).metrics["test_accuracy"]
    low, high = difference.interval()
    return {
        "verdict": difference.verdict(margin),
        "difference": round(difference.value, 6),
        "low": round(low, 6),
        "high": round(high, 6),
        "p_value": round(difference.p_value, 6),
        "detectable": round(difference.detectable, 6),
    }


def models_scored() -> int:
    """Returns how many models the test split has scored, as far as it is in files."""
    recipes = sorted(Path("recipes").glob("*.json"))
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
    pairs = np.corrcoef(accuracies(default[:20]), accuracies(longer))
    results = {
        "default, seeds 1 to 20": summary(default[:20]),
        "default, seeds 21 to 40": summary(default[20:]),
        "epochs 20, seeds 1 to 20": summary(longer),
        "seeds 1 to 20 against 21 to 40": describe(default[:20], default[20:], margin),
        "same setting": {
            f"{old} seeds against {new}": error_rates(default, (old, new), rules)
            for old, new in SIZES
        },
        "equal means, 20 seeds against others": {
            f"{new} seed(s), spread times {ratio}": unequal_spread(
                20, new, ratio, margin
            )
            for new in (1, 2, 3, 5, 20)
            for ratio in (0.5, 1, 2, 3)
        },
        "epochs 20 against default": describe(default[:20], longer, margin),
        "correlation of test accuracy at equal seeds": round(pairs[0, 1], 4),
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
