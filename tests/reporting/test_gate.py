"""The gate: its rules, and who sets them."""

import re

import numpy as np
import pytest
from helpers import ROOT, commit_all, run
from made_up import RULES, comparison_of, difference, outcomes, report, with_seeds

from core_mlp.pipeline.errors import InputError
from core_mlp.reporting import gate
from core_mlp.reporting.comparison import compare
from core_mlp.reporting.significance import difference_of_means


def test_the_thresholds_in_the_repository_can_be_read(monkeypatch):
    monkeypatch.chdir(ROOT)

    assert gate.load(None)


def test_a_good_result_passes_the_gate(good_run):
    found = outcomes(good_run, comparison_of(difference(0.0), difference(0.0)))

    assert set(found.values()) == {"pass"}


@pytest.mark.parametrize(
    ("rule", "metrics", "accuracy", "outcome"),
    [
        ("min_accuracy", {"test_accuracy_low": 0.9699}, 0.0, "investigate"),
        (
            "min_accuracy",
            {"test_accuracy_low": 0.96, "test_accuracy_high": 0.9699},
            0.0,
            "fail",
        ),
        ("max_calibration_error", {"test_calibration_error": 0.04}, 0.0, "fail"),
        # The interval extends 0.00114 to each side.
        ("max_accuracy_loss", {}, -0.0032, "fail"),
        ("max_accuracy_loss", {}, -0.0031, "investigate"),
        ("max_accuracy_loss", {}, -0.0009, "investigate"),
        ("max_accuracy_loss", {}, -0.0008, "pass"),
        ("max_accuracy_loss", {}, 0.01, "pass"),
    ],
)
def test_each_rule_is_decided_by_its_interval(
    good_run, rule, metrics, accuracy, outcome
):
    head = good_run._replace(metrics=good_run.metrics | metrics)

    found = outcomes(head, comparison_of(difference(accuracy), difference(0.0)))

    assert found.pop(rule) == outcome
    assert set(found.values()) == {"pass"}


@pytest.mark.parametrize(
    ("losses", "outcome"),
    [
        ([0.0, 0.015, 0.0], "pass"),
        ([0.0, 0.019, 0.0], "investigate"),
        # Alone it would fail.
        ([0.0, 0.0248, 0.0], "investigate"),
        ([0.0248], "fail"),
        ([0.0, 0.026, 0.0], "fail"),
        ([0.0, -0.5, 0.0], "pass"),
    ],
)
def test_a_class_fails_only_after_correction_for_their_number(
    good_run, losses, outcome
):
    classes = [difference(-loss, error=0.002) for loss in losses]

    found = outcomes(good_run, comparison_of(difference(0.0), *classes))

    assert found["max_class_loss"] == outcome


def test_the_class_that_failed_is_named(good_run):
    """Not the one whose interval reaches lowest, which is only less certain."""
    classes = [difference(-0.03, error=0.02), difference(-0.05, error=0.001)]

    (result,) = (
        result
        for result in gate.check(
            RULES, good_run, comparison_of(difference(0.0), *classes)
        )
        if result.rule == "max_class_loss"
    )

    names = list(comparison_of(difference(0.0), *classes).classes)
    assert result.outcome == "fail"
    assert f"for class {names[1]}," in result.reason


def test_a_class_that_no_seed_changes_blocks_no_gate(good_run):
    perfect = difference_of_means([1.0] * 5, [1.0] * 5)
    changed = difference_of_means([1.0] * 5, [0.9] * 5)

    for classes, outcome in (
        ([perfect], "pass"),
        ([perfect, difference(0.0, error=0.001)], "pass"),
        ([perfect, difference(-0.05, error=0.001)], "fail"),
        ([perfect, changed], "investigate"),
    ):
        found = outcomes(good_run, comparison_of(difference(0.0), *classes))
        assert found["max_class_loss"] == outcome


def test_a_loss_of_the_margin_passes_and_fails_in_at_most_5_of_100(good_run):
    rng = np.random.default_rng(0)
    found = {"pass": 0, "fail": 0, "investigate": 0}
    for _ in range(1000):
        old, new = rng.normal(0.98, 0.0017, 20), rng.normal(0.978, 0.0017, 20)
        base, head = (
            good_run._replace(params={"epochs": n}, seeds=None) for n in (1, 2)
        )
        base, head = (with_seeds(*pair) for pair in ((base, old), (head, new)))
        found[outcomes(head, compare(base, head))["max_accuracy_loss"]] += 1

    assert found["pass"] <= 50
    assert found["fail"] <= 50


def test_a_failed_gate_ends_with_an_error_and_the_report_is_there(seeded):
    result = report(seeded, "longer", "main", command="gate")

    assert result.returncode == 1
    *lines, error = result.stdout.splitlines()
    verdict = lines.index("longer → main: worse")
    assert lines[verdict + 1].startswith("Test accuracy changed by -70.70 points, ")
    failed = [line.split(": ")[1] for line in lines if line.startswith("fail: ")]
    assert "max_accuracy_loss" in failed
    assert error == f"error: the gate failed: {', '.join(failed)}; see report.md"
    text = (seeded / "report.md").read_text()
    rows = re.findall(r"\| ([\w\\]+) \| fail \|", text)
    assert [row.replace("\\", "") for row in rows] == failed


def test_what_is_not_decided_has_an_exit_code_of_its_own(clone):
    path = clone / "gate.yaml"
    easy = RULES.model_copy(update={"min_accuracy": 0.0, "max_calibration_error": 1.0})
    for branch in ("main", "longer"):
        run("git", "checkout", "--quiet", branch, cwd=clone)
        path.write_text("".join(f"{key}: {value}\n" for key, value in easy))
        commit_all(clone, "Easy rules")
    run("git", "checkout", "--quiet", "main", cwd=clone)

    result = report(clone, "main", "longer", command="gate")

    assert result.returncode == 3
    assert not re.search("^error", result.stdout, re.M)
    assert (
        "investigate: max_accuracy_loss: A first impression: 3 seeds" in result.stdout
    )
    for branch in ("longer", "main"):
        run("git", "checkout", "--quiet", branch, cwd=clone)
        run("git", "reset", "--quiet", "--hard", "HEAD~1", cwd=clone)


def test_a_change_cannot_loosen_its_own_thresholds(clone):
    path = clone / "gate.yaml"
    strict, loose = ({"min_accuracy": value} for value in (0.99, 0.5))
    for update in (strict, loose):
        rules = RULES.model_copy(update=update)
        path.write_text("".join(f"{key}: {value}\n" for key, value in rules))
        commit_all(clone, "Rules")

    result = report(clone, "HEAD~1", command="gate")
    text = (clone / "report.md").read_text()
    unknown = gate_of_unknown_base(clone)
    run("git", "reset", "--quiet", "--hard", "HEAD~2", cwd=clone)

    assert result.returncode == 1
    assert "at least 0.99" in result.stdout
    assert (
        "This change edits gate.yaml (min\\_accuracy: 0.99 → 0.5); the base's "
        "thresholds hold." in text
    )
    assert "has other rules or none, so these are the change's own" in unknown


def gate_of_unknown_base(clone):
    """Returns the report against a base whose gate.yaml has another rule."""
    run("git", "branch", "--quiet", "--force", "other", "HEAD~1", cwd=clone)
    run("git", "checkout", "--quiet", "other", cwd=clone)
    (clone / "gate.yaml").write_text("min_luck: 0.5\n")
    commit_all(clone, "Another rule")
    run("git", "checkout", "--quiet", "main", cwd=clone)
    report(clone, "other", command="gate")
    return (clone / "report.md").read_text()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("0.97\n", "97\n", "min_accuracy: Input should be less than or equal to 1"),
        ("min_accuracy", "min_acuracy", "min_accuracy: Field required"),
        ("0.97\n", "[\n", "not valid YAML"),
        ("0.97\n", "2026-13-45\n", "not valid YAML"),
        ("0.97\n", "!!int\n", "not valid YAML"),
    ],
)
def test_a_corrupt_gate_is_one_line(tmp_path, monkeypatch, old, new, problem):
    monkeypatch.chdir(tmp_path)
    text = "".join(f"{key}: {value}\n" for key, value in RULES)
    gate.GATE_FILE.write_text(text.replace(old, new))

    with pytest.raises(InputError, match=problem) as error:
        gate.load(None)
    assert "\n" not in str(error.value)
