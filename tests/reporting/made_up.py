"""Made-up results, and helpers of the tests of reports."""

import json

import pytest
from helpers import core_mlp, run

from core_mlp.pipeline.errors import InputError
from core_mlp.reporting import evidence, gate
from core_mlp.reporting.comparison import Comparison
from core_mlp.reporting.runs import Seeds, read_run
from core_mlp.reporting.significance import LOOKS, Difference

# Made up, but close to those of the models on the branches: others would be refused.
ACCURACIES = {
    "main": [0.05, 0.07, 0.06, 0.08, 0.055],
    "longer": [0.75, 0.78, 0.76, 0.77, 0.79, 0.5],
}


# A rule that the tests do not know has a threshold of 0.5.
THRESHOLDS = {
    "min_accuracy": 0.97,
    "max_calibration_error": 0.03,
    "max_accuracy_loss": 0.002,
    "max_class_loss": 0.02,
}
RULES = gate.Gate(**dict.fromkeys(gate.Gate.model_fields, 0.5) | THRESHOLDS)


def report(folder, *arguments, command="report"):
    return core_mlp(command, *arguments, cwd=folder)


def discard_changes(folder):
    run("git", "checkout", "--quiet", ".", cwd=folder)
    run("git", "clean", "--quiet", "--force", "metrics", "plots", cwd=folder)


def read_run_in(folder, revision):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return read_run(revision)


def difference(value, error=0.0005):
    """A difference over 20 seeds per side; its interval is 2.226 errors either way."""
    return Difference(value, error, df=38, sd=0.0017, level=LOOKS[20])


def comparison_of(accuracy, *classes):
    by_class = {str(label): d for label, d in enumerate(classes)}
    return Comparison("compared", metrics={"test_accuracy": accuracy}, classes=by_class)


def with_seeds(run_, accuracies):
    results = [
        {"seed": seed, "metrics": {"test_accuracy": accuracy}}
        for seed, accuracy in enumerate(accuracies)
    ]
    seeds = Seeds(identity=run_.identity, runs=results)
    metrics = run_.metrics | {"test_loss": float(accuracies[0])}
    return run_._replace(seeds=seeds, metrics=metrics)


def outcomes(head, comparison):
    return {r.rule: r.outcome for r in gate.check(RULES, head, comparison)}


def with_values(run_, values, *, metric="test_accuracy", **changes):
    """Returns a run of other settings, whose seeds have these values of a metric."""
    changed = run_._replace(
        params=run_.params | {"values": values},
        # Other than those of a run with other values.
        metrics=run_.metrics | {"test_loss": sum(values), metric: values[0]},
        **changes,
    )
    if len(values) == 1:
        return changed
    runs = [
        {"seed": seed, "metrics": {"test_accuracy": 0.5, metric: value}}
        for seed, value in enumerate(values, start=1)
    ]
    return changed._replace(seeds=Seeds(identity=changed.identity, runs=runs))


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refuse(run_, problem):
    """Asserts that the results of a run are refused with a message."""
    with pytest.raises(InputError, match=problem):
        evidence.check(run_)
