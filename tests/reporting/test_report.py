"""Report, gate, model card and seeds, on real branches."""

import csv
import io
import json
import re
import shutil
import time

import numpy as np
import pytest
from helpers import ROOT, commit_all, run, run_stages, try_to_run
from scipy import stats

from core_mlp.pipeline.stage import InputError
from core_mlp.reporting import gate, model_card
from core_mlp.reporting.runs import (
    HISTORY,
    Mistake,
    Run,
    compare,
    read_run,
    why_not_comparable,
)


@pytest.fixture(scope="module")
def clone(pipeline, tmp_path_factory):
    """A clone, without cache or remote, in which branch `longer` has more epochs."""
    folder = tmp_path_factory.mktemp("clone")
    work = shutil.copytree(pipeline, folder / "work")
    run("git", "checkout", "--quiet", "-b", "longer", cwd=work)
    params = work / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 1\n", "epochs: 12\n"))
    run_stages(work, "train", "export", "evaluate")
    run("dvc", "commit", "--quiet", "--force", cwd=work)
    commit_all(work, "Train for longer")
    run("git", "checkout", "--quiet", "main", cwd=work)
    bare = folder / "bare"
    run("git", "clone", "--quiet", str(work), str(bare), cwd=folder)
    run("git", "fetch", "--quiet", "origin", "longer:longer", cwd=bare)
    return bare


def report(folder, *arguments):
    return try_to_run("core-mlp", "report", *arguments, cwd=folder)


def discard_changes(folder):
    run("git", "checkout", "--quiet", ".", cwd=folder)
    run("git", "clean", "--quiet", "--force", "metrics", cwd=folder)


def rows_of(folder, revision, path):
    text = run("git", "show", f"{revision}:{path}", cwd=folder)
    return list(csv.DictReader(io.StringIO(text)))


def test_the_report_agrees_with_an_independent_computation(clone):
    start = time.monotonic()
    result = report(clone, "main", "longer")
    seconds = time.monotonic() - start

    assert result.returncode == 0, result.stdout
    assert seconds < 10
    text = (clone / "report.md").read_text()
    old, new = (
        {row["index"] for row in rows_of(clone, revision, "plots/mistakes.csv")}
        for revision in ("main", "longer")
    )
    fixed, broken = len(old - new), len(new - old)
    p_value = min(1.0, 2 * stats.binom.cdf(min(fixed, broken), fixed + broken, 0.5))
    shares = np.array([fixed + 0.5, broken + 0.5, 360 - fixed - broken + 1]) / 362
    mean = shares @ [1, -1, 0]
    error = ((shares @ [1, 1, 0] - mean**2) / 362) ** 0.5
    ends = [100 * (mean + z * error) for z in stats.norm.ppf([0.025, 0.975])]
    assert "## main → longer: better\n" in text
    assert (
        f"**{fixed} images fixed, {broken} broken.** Accuracy changed by "
        f"{100 * (fixed - broken) / 360:+.2f} points (95 % interval {ends[0]:+.2f} to "
        f"{ends[1]:+.2f}; McNemar's exact test, p \\< 0.0001)"
    ) in text
    assert p_value < 0.0001
    assert "| epochs | 1 | 12 |" in text
    assert len(text) < 65_536


def test_the_page_has_the_same_tables_and_needs_no_network(clone):
    assert report(clone, "main", "longer").returncode == 0

    markdown, page = ((clone / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert page.count("<table>") == len(re.findall(r"^\| :--", markdown, re.M))
    assert "http" not in page
    assert "<script" not in page


def test_no_change_is_no_difference(clone):
    assert report(clone, "longer", "longer").returncode == 0

    text = (clone / "report.md").read_text()
    assert "## longer → longer: no significant difference\n" in text
    assert "**0 images fixed, 0 broken.**" in text
    assert "missing or from other settings in longer and longer" in text
    assert "No changes." in text


def test_other_test_images_are_not_compared(clone):
    base, head = read_run_in(clone, "main"), read_run_in(clone, "longer")
    other = head._replace(test_split="f" * 32, params=head.params | {"dataset": "a"})

    assert why_not_comparable(base, other) == (
        "they were tested on different images: main on 360 of sklearn_digits, longer "
        "on 360 of a"
    )
    assert why_not_comparable(base._replace(test_split=None), head) == (
        "main does not record which images it was tested on"
    )
    assert why_not_comparable(base, head) is None


def read_run_in(folder, revision):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return read_run(revision)


def test_the_workspace_is_compared_and_its_model_card_written(clone):
    metrics = clone / "metrics/evaluate.json"
    metrics.write_text(metrics.read_text().replace("{", '{"test_gain": 1,'))

    assert report(clone, "main").returncode == 0

    assert "## main → workspace: no significant" in (clone / "report.md").read_text()
    assert "| test\\_gain |  | " in (clone / "report.md").read_text()
    discard_changes(clone)
    assert report(clone, "main").returncode == 0
    assert (clone / "MODEL_CARD.md").read_text() == model_card.render(
        read_run_in(clone, None)
    )
    discard_changes(clone)


@pytest.mark.parametrize(
    ("revision", "problem"),
    [
        ("no-such-branch", "no-such-branch: no such revision or experiment"),
        ("--help-me", "unrecognized arguments: --help-me"),
        ("without", "without: plots/mistakes.csv is missing"),
        ("twin", "twin: several experiments have this name"),
    ],
)
def test_a_revision_that_cannot_be_read_is_one_line(clone, revision, problem):
    run("git", "checkout", "--quiet", "-B", "without", "main", cwd=clone)
    run("git", "rm", "--quiet", "plots/mistakes.csv", cwd=clone)
    commit_all(clone, "Without its mistakes")
    run("git", "checkout", "--quiet", "main", cwd=clone)
    for baseline in ("refs/exps/ab/cd", "refs/exps/ef/01"):
        run("git", "update-ref", f"{baseline}/twin", "main", cwd=clone)

    result = report(clone, revision, "main")

    assert result.returncode != 0
    assert result.stdout.splitlines()[-1].endswith(problem)
    assert "Traceback" not in result.stdout


def test_means_over_seeds_are_compared_where_both_sides_have_them(clone):
    base, head = read_run_in(clone, "main"), read_run_in(clone, "longer")
    for name, accuracies, result in (
        ("main", [0.50, 0.52, 0.51], base),
        ("longer", [0.90, 0.93, 0.91, 0.92], head),
    ):
        runs = [
            {"seed": seed, "metrics": {"test_accuracy": accuracy}}
            for seed, accuracy in enumerate(accuracies, start=1)
        ]
        run("git", "checkout", "--quiet", name, cwd=clone)
        path = clone / "metrics/seeds.json"
        path.write_text(json.dumps({"identity": result.identity, "runs": runs}))
        commit_all(clone, "Seeds")

    assert report(clone, "main", "longer").returncode == 0
    text = (clone / "report.md").read_text()
    assert "### Over seeds (3 and 4)" in text
    assert (
        "| test\\_accuracy | 0.5100 ± 0.0100 | 0.9150 ± 0.0129 | +0.4050 ↑ better | "
        in text
    )
    # Of other settings, code or data, they say nothing.
    head = read_run_in(clone, "longer")
    assert head.has_own_seeds
    assert not head._replace(params=head.params | {"epochs": 13}).has_own_seeds
    assert head._replace(params=head.params | {"seed": 13}).has_own_seeds
    for path in ("data/tfrecords/train", "src/core_mlp/training"):
        assert not head._replace(inputs=head.inputs | {path: "0"}).has_own_seeds
    for name in ("main", "longer"):
        run("git", "checkout", "--quiet", "--force", name, cwd=clone)
        run("git", "reset", "--quiet", "--hard", "HEAD~1", cwd=clone)
    run("git", "checkout", "--quiet", "main", cwd=clone)


RULES = gate.Gate(
    min_accuracy_low=0.97,
    min_class_accuracy=0.95,
    max_calibration_error=0.03,
    max_accuracy_loss=0.002,
)


@pytest.fixture
def good_run():
    """A run with 10,000 test images of ten classes, of which it has 200 wrong."""
    names = [str(label) for label in range(10)]
    mistakes = {
        index: Mistake(names[index % 10], names[(index + 1) % 10], 0.75)
        for index in range(200)
    }
    confusion = {(a, b): 980 if a == b else 0 for a in names for b in names}
    for mistake in mistakes.values():
        confusion[mistake.label, mistake.predicted] += 1
    epochs = [1.0, 2.0]
    return Run(
        name="good",
        params={"epochs": 2},
        metrics={
            "train_epochs": 2,
            "test_accuracy": 0.98,
            "test_accuracy_low": 0.977,
            "test_accuracy_high": 0.983,
            "test_loss": 0.08,
            "test_calibration_error": 0.01,
        },
        history=dict.fromkeys(HISTORY, epochs),
        class_names=names,
        confusion=confusion,
        class_accuracies=dict.fromkeys(names, (0.98, 0.97, 0.987)),
        mistakes=mistakes,
        test_split=None,
        seeds=None,
        inputs={},
    )


def outcomes(head, comparison):
    return {r.rule: r.outcome for r in gate.check(RULES, head, comparison)}


def test_a_good_result_passes_the_gate(good_run):
    found = outcomes(good_run, compare(good_run, good_run))

    assert set(found.values()) == {"pass"}


def test_the_thresholds_in_the_repository_can_be_read():
    assert gate.load(ROOT / gate.PATH)


def with_more_mistakes(head, number, start=0):
    """Returns a run with so many more wrong answers, from an image on."""
    free = (index for index in range(start, 10_000) if index not in head.mistakes)
    mistakes = {next(free): Mistake("0", "1", 0.5) for _ in range(number)}
    return head._replace(mistakes=head.mistakes | mistakes)


@pytest.mark.parametrize(
    ("rule", "metrics", "class_accuracy", "num_broken", "outcome"),
    [
        ("min_accuracy_low", {"test_accuracy_low": 0.9699}, None, 0, "fail"),
        ("max_calibration_error", {"test_calibration_error": 0.04}, None, 0, "fail"),
        ("min_class_accuracy", {}, (0.949, 0.93, 0.96), 0, "investigate"),
        ("min_class_accuracy", {}, (0.93, 0.91, 0.945), 0, "fail"),
        ("max_accuracy_loss", {}, None, 21, "fail"),
        ("max_accuracy_loss", {}, None, 20, "pass"),
    ],
)
def test_each_rule_can_fail(
    good_run, rule, metrics, class_accuracy, num_broken, outcome
):
    head = with_more_mistakes(good_run, num_broken)
    head = head._replace(metrics=head.metrics | metrics)
    if class_accuracy:
        changed = head.class_accuracies | {"3": class_accuracy}
        head = head._replace(class_accuracies=changed)

    found = outcomes(head, compare(good_run, head))

    assert found.pop(rule) == outcome
    assert set(found.values()) == {"pass"}


def test_a_loss_that_may_be_chance_is_to_be_investigated(good_run):
    # 525 others are broken, 500 fixed: within the noise of 1,025.
    base = with_more_mistakes(good_run, 500)
    head = with_more_mistakes(good_run, 525, start=5000)
    assert compare(base, head).accuracy.value == -0.0025

    found = outcomes(head, compare(base, head))
    alone = outcomes(head, None)

    assert found["max_accuracy_loss"] == "investigate"
    assert alone["max_accuracy_loss"] == "investigate"


def test_a_failed_gate_ends_with_an_error_and_the_report_is_there(clone):
    result = try_to_run("core-mlp", "gate", "longer", "main", cwd=clone)

    assert result.returncode == 1
    *lines, error = result.stdout.splitlines()
    verdict = lines.index("longer → main: worse")
    assert re.match(r"\d+ images fixed, \d+ broken. Acc", lines[verdict + 1])
    failed = [line.split(": ")[1] for line in lines if line.startswith("fail: ")]
    assert "max_accuracy_loss" in failed
    assert error == f"error: gate.yaml: failed: {', '.join(failed)}; see report.md"
    text = (clone / "report.md").read_text()
    rows = re.findall(r"\| ([\w\\]+) \| fail \|", text)
    assert [row.replace("\\", "") for row in rows] == failed


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("0.97\n", "97\n", "min_accuracy_low: Input should be less than or equal to 1"),
        ("min_accuracy_low", "min_acuracy", "min_accuracy_low: Field required"),
        ("0.97\n", "[\n", "not a YAML mapping"),
        ("0.97\n", "2026-13-45\n", "not a YAML mapping"),
        ("0.97\n", "!!int\n", "not a YAML mapping"),
    ],
)
def test_a_corrupt_gate_is_one_line(tmp_path, old, new, problem):
    path = tmp_path / "gate.yaml"
    text = "".join(f"{key}: {value}\n" for key, value in RULES.model_dump().items())
    path.write_text(text.replace(old, new))

    with pytest.raises(InputError, match=problem) as error:
        gate.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "content", "problem"),
    [
        ("dvc.lock", "<<<<<<< HEAD\n", "dvc.lock is corrupt: "),
        ("params.yaml", "a: [", "params.yaml is corrupt: "),
        ("params.yaml", "", "params.yaml is corrupt: "),
        ("metrics/seeds.json", "[]", "metrics/seeds.json is corrupt: "),
        ("metrics/train.json", '{"train_loss": "low"}', "train.json is corrupt: "),
        ("metrics/evaluate.json", "{}", "its metrics lack test_accuracy"),
        ("plots/history.csv", "epoch,train_loss\n1,2\n", "history.csv is corrupt: Key"),
        ("plots/per_class.csv", "label,accuracy,low,high\n", "corrupt: ValueError: no"),
        (
            "plots/mistakes.csv",
            "index,label,predicted,confidence\n",
            "are from different runs",
        ),
        ("plots/confusion.csv", "\0", "plots/confusion.csv is corrupt: "),
    ],
)
def test_a_corrupt_result_is_one_line(clone, path, content, problem):
    (clone / path).write_text(content)

    with pytest.raises(InputError) as error:
        read_run_in(clone, None)
    discard_changes(clone)

    assert problem in str(error.value)
    assert str(error.value).startswith("workspace: ")
    assert str(error.value).isprintable()


def test_parameters_that_were_not_run_are_not_reported(clone):
    params = clone / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 1\n", "epochs: 3\n"))

    result = report(clone, "main")
    discard_changes(clone)

    assert result.returncode == 1
    assert result.stdout == (
        "error: workspace: params.yaml has another epochs than the run that its "
        "results are from: run `dvc repro` first\n"
    )


def test_results_of_more_seeds_are_not_replaced_by_fewer(clone):
    runs = [{"seed": seed, "metrics": {"test_accuracy": 0.5}} for seed in range(3)]
    path = clone / "metrics/seeds.json"
    path.write_text(json.dumps({"identity": "of any settings", "runs": runs}))
    before = path.read_bytes()

    result = try_to_run("core-mlp", "seeds", "2", cwd=clone)

    assert result.returncode == 1
    assert result.stdout == (
        "error: metrics/seeds.json has 3 seeds, of these settings or others: to "
        "replace them by 2, add --replace\n"
    )
    assert path.read_bytes() == before
    discard_changes(clone)


@pytest.mark.slow
def test_seeds_are_run_and_summarized(workspace):
    run("core-mlp", "seeds", "2", cwd=workspace)

    seeds = json.loads((workspace / "metrics/seeds.json").read_text())
    assert [row["seed"] for row in seeds["runs"]] == [1, 2]
    accuracies = [row["metrics"]["test_accuracy"] for row in seeds["runs"]]
    assert accuracies[0] != accuracies[1]
    assert seeds["summary"]["test_accuracy"]["mean"] == pytest.approx(
        sum(accuracies) / 2, abs=1e-6
    )
    assert read_run_in(workspace, None).has_own_seeds
    assert run("git", "diff", "--", "params.yaml", cwd=workspace) == ""
