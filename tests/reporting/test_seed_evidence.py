"""Seeds that contradict themselves, or the run that they belong to."""

import json

import numpy as np
import pytest
from made_up import refuse

from core_mlp.evaluation import metrics
from core_mlp.pipeline.errors import InputError
from core_mlp.reporting import evidence
from core_mlp.reporting.runs import Seeds, read_run
from core_mlp.reporting.significance import summarize
from core_mlp.results.evaluate import CalibrationBin, Mistake


def write_seeds(folder, accuracies, *, identity=None, classes=None, **changes):
    """Writes metrics/seeds.json for the workspace's settings, with changes."""
    runs = [
        {
            "seed": seed,
            "metrics": {"test_accuracy": accuracy},
            "classes": classes or {},
        }
        for seed, accuracy in enumerate(accuracies, start=1)
    ]
    content = {"identity": identity or read_run(None).identity, "runs": runs} | changes
    (folder / "metrics/seeds.json").write_text(json.dumps(content))


def test_seeds_like_the_runs_own_are_believed(in_project):
    own = read_run(None).metrics["test_accuracy"]
    write_seeds(in_project, [own - 0.01, own, own + 0.01, own + 0.02, own - 0.02])

    assert len(read_run(None).results) == 5


def test_seeds_unlike_the_runs_own_are_refused(in_project):
    """For example those of a better base, with the identity of a worse head."""
    own = read_run(None).metrics["test_accuracy"]
    better = own + 0.4
    write_seeds(
        in_project, [better - 0.01, better, better + 0.01, better, better + 0.01]
    )

    with pytest.raises(InputError, match="which is improbable"):
        read_run(None)


def test_seeds_of_other_settings_are_not_compared_with_the_run(in_project):
    write_seeds(in_project, [0.97, 0.98, 0.97, 0.98, 0.97], identity="another")

    assert len(read_run(None).results) == 1


def test_seeds_that_cannot_be_are_refused(in_project):
    own = read_run(None).metrics["test_accuracy"]
    classes = {row.label: own for row in read_run(None).classes}
    summary = {"mean": 0.99, "sd": 0.0, "low": 0.99, "high": 0.99}
    good = {"seed": 1, "metrics": {"test_accuracy": own}}
    identity = read_run(None).identity
    for changes, problem in (
        ({"runs": [good, good]}, "the same seed twice"),
        ({"summary": {"test_accuracy": summary}}, "summary of test_accuracy"),
        ({"runs": [good, {"seed": 2, "metrics": {}}]}, "seed 2 .* no test_accuracy"),
        (
            {"runs": [good, {"seed": 2, "metrics": {"test_accuracy": 1.5}}]},
            "seed 2 .* test_accuracy = 1.5",
        ),
        (
            {"runs": [good, {"seed": 2, "metrics": good["metrics"] | {"a_loss": -1}}]},
            "seed 2 .* a_loss = -1",
        ),
        (
            {"runs": [good, good | {"seed": 2, "classes": {"3": 1.01}}]},
            "seed 2 .* 3 = 1.01",
        ),
        (
            {
                "runs": [
                    good,
                    {
                        "seed": 2,
                        "metrics": {"test_accuracy": own + 0.01},
                        "classes": classes,
                    },
                ]
            },
            "seed 2 .* different test_accuracy than its classes give",
        ),
    ):
        write_seeds(in_project, [own, own], identity=identity, **changes)
        with pytest.raises(InputError, match=problem):
            read_run(None)


def seeded(run, *results, summary=None):
    """Returns the run with the results of several seeds: metrics, maybe classes too."""
    runs = [{"seed": seed, **result} for seed, result in enumerate(results)]
    seeds = Seeds(identity=run.identity, runs=runs, summary=summary or {})
    return run._replace(seeds=seeds)


def test_each_number_of_the_summary_has_to_be_that_of_all_seeds(true_run):
    own = true_run.metrics["test_accuracy"]
    results = [
        {"metrics": {"test_accuracy": own + step / 100, "test_loss": 2.0 + step}}
        for step in (-1, 0, 1)
    ]
    correct = {
        "test_accuracy": summarize([own - 0.01, own, own + 0.01]),
        "test_loss": summarize([1.0, 2.0, 3.0]),
    }
    evidence.check(seeded(true_run, *results, summary=correct))
    for name, summary in correct.items():
        for column, value in summary._asdict().items():
            edited = correct | {name: summary._replace(**{column: value + 1e-5})}
            made_up = seeded(true_run, *results, summary=edited)
            refuse(made_up, f"the summary of {name} in metrics/seeds.json is not that")

    del results[0]["metrics"]["test_loss"]
    of_two = correct | {"test_loss": summarize([2.0, 3.0])}
    refuse(seeded(true_run, *results, summary=of_two), "the summary of test_loss")


def test_each_seed_has_to_agree_with_its_classes(true_run):
    """Classes count by their number of images; a seed may lack them."""
    own = {"test_accuracy": true_run.metrics["test_accuracy"]}
    classes = {row.label: row.accuracy for row in true_run.classes}
    evidence.check(
        seeded(true_run, {"metrics": own}, {"metrics": own, "classes": classes})
    )

    edited = classes | {
        true_run.classes[-1].label: true_run.classes[-1].accuracy + 1e-3
    }
    refuse(
        seeded(true_run, {"metrics": own}, {"metrics": own, "classes": edited}),
        "seed 1 in metrics/seeds.json has a different test_accuracy than its classes",
    )


def test_a_loss_is_the_only_number_of_a_seed_that_may_be_above_one(true_run):
    own = {"test_accuracy": true_run.metrics["test_accuracy"]}
    result = {"metrics": own | {"test_loss": 7.0}}
    evidence.check(seeded(true_run, result, result))

    refuse(seeded(true_run, result, result | {"classes": {"gloss": 7.0}}), "gloss = 7")


def counted(run, counts):
    """Returns the run with other images by actual and predicted class, of two."""
    counts = np.array(counts)
    pairs = metrics.confused_pairs(counts, ["a", "b"])
    wrong = [row for row in pairs if row.actual != row.predicted]
    mistakes = [row[:2] for row in wrong for _ in range(row.count)]
    value, low, high = metrics.proportion(np.trace(counts), counts.sum())
    return run._replace(
        confusion={row[:2]: row.count for row in pairs},
        classes=metrics.class_accuracies(counts, ["a", "b"]),
        calibration=[CalibrationBin(value, value, int(counts.sum()))],
        mistakes={i: Mistake(i, *pair, 0.5) for i, pair in enumerate(mistakes)},
        metrics=run.metrics
        | {
            "test_accuracy": value,
            "test_accuracy_low": low,
            "test_accuracy_high": high,
            "test_balanced_accuracy": np.mean(np.diag(counts) / counts.sum(axis=1)),
            "test_calibration_error": 0.0,
        },
    )


def seeds_around(run, mean, sd):
    """Returns the run with five seeds of this mean and standard deviation."""
    steps = sd * np.array([-(2**0.5), 0.0, 0.0, 0.0, 2**0.5])
    return seeded(run, *({"metrics": {"test_accuracy": mean + d}} for d in steps))


@pytest.mark.parametrize("sign", [-1, 1])
def test_seeds_are_refused_if_the_runs_own_accuracy_is_improbable(true_run, sign):
    """With four degrees of freedom, p = 0.001 at t = 8.61.

    The squared error is 0.02^2 (1 + 1/5) + 0.5^2 / 10,000 = 0.0225^2, about.
    """
    run_ = counted(true_run, [[2500, 2500], [2500, 2500]])

    evidence.check(seeds_around(run_, 0.5 + sign * 8.2 * 0.0225, 0.02))
    refuse(seeds_around(run_, 0.5 + sign * 9.1 * 0.0225, 0.02), "improbable")


def test_seeds_that_agree_by_chance_leave_the_noise_of_the_test_images(true_run):
    """100 images: 0.1 is two standard deviations."""
    run_ = counted(true_run, [[25, 25], [25, 25]])

    evidence.check(seeds_around(run_, 0.6, 0.0001))
    refuse(seeds_around(run_, 0.95, 0.0001), "improbable")


def test_seeds_without_any_noise_are_believed(true_run):
    run_ = counted(true_run, [[50, 0], [0, 50]])

    evidence.check(seeds_around(run_, 1.0, 0.0))
