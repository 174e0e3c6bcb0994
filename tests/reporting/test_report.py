"""Report, gate, model card and seeds, on real branches."""

import base64
import io
import json
import re
import resource
import shutil

import numpy as np
import pytest
from helpers import ROOT, commit_all, core_mlp, run, run_stages
from PIL import Image
from scipy import stats

from core_mlp.evaluation import plots
from core_mlp.evaluation.metrics import ClassAccuracy
from core_mlp.pipeline.stage import InputError
from core_mlp.reporting import gate, model_card, sweep
from core_mlp.reporting.report import (
    describe_verdict,
    metric_rows,
    render_report,
    thumbnail,
)
from core_mlp.reporting.runs import (
    Comparison,
    Mistake,
    Run,
    Seeds,
    compare,
    read_run,
)
from core_mlp.reporting.significance import Difference, difference_of_means

# Made up, but near those of the models on the branches: others would be refused.
ACCURACIES = {
    "main": [0.05, 0.07, 0.06, 0.08],
    "longer": [0.75, 0.78, 0.76, 0.77, 0.79],
}


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


@pytest.fixture
def seeded(clone):
    """The same clone with seeds on `main` and `longer`; `alone` is `longer` without."""
    run("git", "branch", "--quiet", "--force", "alone", "longer", cwd=clone)
    for name in ("longer", "main"):
        run("git", "checkout", "--quiet", name, cwd=clone)
        identity = read_run_in(clone, name).identity
        runs = [
            {
                "seed": seed,
                "metrics": {"test_accuracy": accuracy},
                "classes": {"3": accuracy, "4": 0.8 + seed / 1000},
            }
            for seed, accuracy in enumerate(ACCURACIES[name], start=1)
        ]
        text = json.dumps({"identity": identity, "runs": runs})
        (clone / "metrics/seeds.json").write_text(text)
        commit_all(clone, "Seeds")
    yield clone
    for name in ("longer", "main"):
        run("git", "checkout", "--quiet", "--force", name, cwd=clone)
        run("git", "reset", "--quiet", "--hard", "HEAD~1", cwd=clone)


def report(folder, *arguments, command="report"):
    return core_mlp(command, *arguments, cwd=folder)


def discard_changes(folder):
    run("git", "checkout", "--quiet", ".", cwd=folder)
    run("git", "clean", "--quiet", "--force", "metrics", cwd=folder)


def read_run_in(folder, revision):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return read_run(revision)


@pytest.mark.parametrize("head", ["longer", "alone"])
def test_the_verdict_compares_settings_over_seeds(seeded, head):
    result = report(seeded, "main", head)

    assert result.returncode == 0, result.stdout
    old, new = ACCURACIES["main"], ACCURACIES["longer"]
    if head == "longer":
        test = stats.ttest_ind(new, old, equal_var=False)
        low, high = test.confidence_interval()
    else:
        new = [read_run_in(seeded, "alone").metrics["test_accuracy"]]
        half = stats.t.ppf(0.975, 3) * np.std(old, ddof=1) * (1 + 1 / 4) ** 0.5
        low, high = (new[0] - np.mean(old) + sign * half for sign in (-1, 1))
    text = (seeded / "report.md").read_text()
    value = 100 * (np.mean(new) - np.mean(old))
    assert f"## main → {head}: better\n" in text
    size = f"the mean of {len(new)} seeds" if head == "longer" else "one seed"
    assert (
        f"**Test accuracy changed by {value:+.2f} points, from the mean of 4 seeds of "
        f"main to {size} of {head}.**\n\n95 % interval {100 * low:+.2f} to "
        f"{100 * high:+.2f}, p "
    ) in text
    assert "| test\\_accuracy | 0.0650 ± 0.0129 | " in text
    assert "| epochs | 1 | 12 |" in text
    assert ("### Classes, over seeds" in text) == (head == "longer")
    # The terminal and the page say the same.
    for line in text.splitlines()[2:5:2]:
        assert line.replace("*", "").replace("\\", "") in result.stdout
    assert f"{head}: better</h2>" in (seeded / "report.html").read_text()


@pytest.mark.usefixtures("real_commands")
def test_a_report_takes_little_longer_than_the_import_of_its_libraries(seeded):
    def seconds_of(*command):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        run(*command, cwd=seeded)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    imports = "import jinja2, matplotlib.figure, numpy, pydantic, scipy.stats"

    # A ratio, since machines differ.
    assert seconds_of("core-mlp", "report", "main", "longer") < 3 * seconds_of(
        *("python", "-c", imports)
    )


def test_classes_are_corrected_for_their_number(seeded):
    assert report(seeded, "main", "longer").returncode == 0

    old, new = ACCURACIES["main"], ACCURACIES["longer"]
    p_value = 2 * stats.ttest_ind(new, old, equal_var=False).pvalue
    text = (seeded / "report.md").read_text()
    shown = "\\< 0.0001" if p_value < 0.0001 else f"{p_value:.2g}"
    assert re.search(rf"\| 3 \| \d+ \|.*↑ better \| {re.escape(shown)} \|", text)
    p_value = stats.ttest_ind(
        [0.801, 0.802, 0.803, 0.804],
        [0.801, 0.802, 0.803, 0.804, 0.805],
        equal_var=False,
    ).pvalue
    assert re.search(rf"\| 4 \| \d+ \|.*\| {p_value:.2g} \|", text)


def test_without_seeds_nothing_is_decided(clone):
    result = report(clone, "main", "longer")

    assert result.returncode == 0
    text = (clone / "report.md").read_text()
    assert "## main → longer: not decided\n" in text
    assert "run core-mlp seeds 20 on one side" in text
    old, new = (read_run_in(clone, name).mistakes for name in ("main", "longer"))
    fixed, broken = len(old.keys() - new.keys()), len(new.keys() - old.keys())
    assert (
        f"These two models differ on {fixed + broken} test images: {fixed} fixed, "
        f"{broken} broken." in text
    )
    assert report(clone, "main", "longer", command="gate").returncode in (1, 3)


def test_another_seed_is_no_change_of_the_settings(clone):
    base = read_run_in(clone, "main")
    other = base._replace(
        params=base.params | {"seed": 5}, metrics=base.metrics | {"test_loss": 9.0}
    )

    found = compare(base, other)

    assert "the same settings" in found.reason
    assert found.status == "same settings"
    assert not found.metrics


def test_seeds_of_other_settings_say_nothing(seeded):
    head = read_run_in(seeded, "longer")

    assert len(head.results) == 5
    assert head.own_result.metrics == head.metrics
    assert head.own_result.metrics != head.results[0].metrics
    assert len(head._replace(params=head.params | {"epochs": 13}).results) == 1
    assert len(head._replace(params=head.params | {"seed": 13}).results) == 5
    for path in ("data/tfrecords/train", "src/core_mlp/training"):
        assert len(head._replace(inputs=head.inputs | {path: "0"}).results) == 1


def test_the_page_has_the_same_tables_and_pictures_and_needs_no_network(seeded):
    assert report(seeded, "main", "longer").returncode == 0

    markdown, page = (
        (seeded / f"report.{kind}").read_text() for kind in ("md", "html")
    )
    assert page.count("<table>") == len(re.findall(r"^\| :--", markdown, re.M))
    assert "http" not in page
    assert "<script" not in page
    assert len(markdown) < 65_536
    assert "base64" not in markdown
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).size == (8, 8)


def test_a_thumbnail_is_the_image_of_its_index(clone, tmp_path):
    base = read_run_in(clone, "main")
    images = np.random.default_rng(0).integers(0, 256, [45, 5, 4, 3], np.uint8)
    plots.write_sprite(tmp_path / "sprite.png", images)
    mistakes = {7 * n: Mistake(7 * n, "0", "1", 0.5) for n in range(45)}
    run_ = base._replace(
        mistakes=mistakes, sprite=(tmp_path / "sprite.png").read_bytes()
    )

    for number in (0, 19, 20, 44):
        found = thumbnail(run_, 7 * number)

        png = base64.b64decode(found.split("base64,")[1].split('"')[0])
        image = np.asarray(Image.open(io.BytesIO(png)))
        np.testing.assert_array_equal(image, images[number])
    assert thumbnail(run_._replace(sprite=None), 7) == ""


def test_a_change_of_no_result_is_one_line(clone):
    result = report(clone, "longer", "longer")

    assert result.returncode == 0
    text = (clone / "report.md").read_text()
    assert text == "## longer → longer: no result changed\n"
    assert report(clone, "main", "main", command="gate").stdout.count("o result") == 3
    # Such as a new parameter whose default changes nothing.
    head = read_run_in(clone, "longer")
    other = head._replace(params=head.params | {"weight_decay": 0.0})
    assert compare(head, other).status == "no result changed"


def test_other_test_images_are_not_compared(clone):
    base, head = read_run_in(clone, "main"), read_run_in(clone, "longer")
    other = head._replace(test_split="f" * 32, params=head.params | {"dataset": "a"})

    found = compare(base, other)

    assert found.reason == (
        "They were tested on different images: main on 360 of sklearn_digits, longer "
        "on 360 of a"
    )
    assert set(outcomes(other, found).values()) >= {"fail"}
    assert {row[3] for row in metric_rows(base, other, found)} == {""}
    assert compare(base, head).status == "not decided"
    # The results of seeds of other settings do not count, which must be said.
    seeds = Seeds(identity="another", runs=[base.own_result] * 5)
    assert "seeds.json" not in compare(base, head).reason
    assert "seeds.json of longer is from other parameters, code or data" in (
        compare(base, head._replace(seeds=seeds)).reason
    )


def test_the_workspace_is_compared_and_its_model_card_written(clone):
    metrics = clone / "metrics/evaluate.json"
    metrics.write_text(metrics.read_text().replace("{", '{"test_gain": 1,'))

    assert report(clone, "main").returncode == 0

    assert "## main → workspace: same settings" in (clone / "report.md").read_text()
    assert "| test\\_gain |  | " in (clone / "report.md").read_text()
    discard_changes(clone)
    assert report(clone, "main").returncode == 0
    assert (clone / "MODEL_CARD.md").read_text() == model_card.render_card(
        read_run_in(clone, None)
    )
    discard_changes(clone)


@pytest.mark.usefixtures("fabricated")
def test_a_model_at_chance_is_a_warning(clone):
    metrics = clone / "metrics/evaluate.json"
    values = json.loads(metrics.read_text())
    counts = {row.label: row.count for row in read_run_in(clone, None).classes}
    label = max(counts, key=counts.get)
    always = f"always answering {label}, which is right for {counts[label]} of 360 test"
    share = counts[label] / 360

    for low, warns in [(share, True), (share + 1e-6, False)]:
        metrics.write_text(json.dumps(values | {"test_accuracy_low": low}))
        assert report(clone, "main").returncode == 0
        assert (always in (clone / "report.md").read_text()) is warns
    discard_changes(clone)


def test_test_images_among_the_training_ones_are_a_warning(clone):
    problems = clone / "plots/data_problems.csv"
    text = problems.read_text()
    assert "test,also in train,0" in text
    problems.write_text(text.replace("test,also in train,0", "test,also in train,7"))

    assert report(clone, "main").returncode == 0

    warning = "Warning: the train split also has 7 test images."
    assert warning in (clone / "report.md").read_text()
    card = (clone / "MODEL_CARD.md").read_text()
    assert "**7 of which are also in the train split**:" in card
    problems.write_text("split,problem\n")
    assert "plots/data_problems.csv is corrupt" in report(clone, "main").stdout
    problems.unlink()  # As in an older commit.
    assert report(clone, "main").returncode == 0
    assert warning not in (clone / "report.md").read_text()
    card = (clone / "MODEL_CARD.md").read_text()
    assert "none of which were used in training:" in card
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


RULES = gate.Gate(
    min_accuracy=0.97,
    max_calibration_error=0.03,
    max_accuracy_loss=0.002,
    max_class_loss=0.02,
)


@pytest.fixture
def good_run():
    """A run with 10,000 test images of ten classes, of which it has 200 wrong."""
    names = [str(label) for label in range(10)]
    mistakes = {
        index: Mistake(index, names[index % 10], names[(index + 1) % 10], 0.75)
        for index in range(200)
    }
    confusion = {(a, b): 980 if a == b else 0 for a in names for b in names}
    for mistake in mistakes.values():
        confusion[mistake.label, mistake.predicted] += 1
    return Run(
        name="good",
        params={"dataset": "digits", "epochs": 2},
        metrics={
            "train_epochs": 2,
            "validation_accuracy": 0.98,
            "test_accuracy": 0.98,
            "test_accuracy_low": 0.977,
            "test_accuracy_high": 0.983,
            "test_loss": 0.08,
            "test_calibration_error": 0.01,
        },
        history=[],
        confusion=confusion,
        classes=[],
        calibration=[],
        mistakes=mistakes,
        sprite=None,
        test_split="0" * 32,
        seeds=None,
        inputs={},
    )


def outcomes(head, comparison):
    return {r.rule: r.outcome for r in gate.check(RULES, head, comparison)}


def difference(value, error=0.0005):
    return Difference(value, error, df=19, sd=0.0017)


def comparison_of(accuracy, *classes):
    by_class = {str(label): d for label, d in enumerate(classes)}
    return Comparison("compared", "", {"test_accuracy": accuracy}, by_class, [], [])


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
        # The interval is 0.00105 to each side.
        ("max_accuracy_loss", {}, -0.0031, "fail"),
        ("max_accuracy_loss", {}, -0.003, "investigate"),
        ("max_accuracy_loss", {}, -0.001, "investigate"),
        ("max_accuracy_loss", {}, -0.0009, "pass"),
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
        ([0.0, 0.0245, 0.0], "investigate"),
        ([0.0245], "fail"),
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
    """Not the one whose interval reaches lowest, which is only known less well."""
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


def with_seeds(run_, accuracies):
    results = [
        {"seed": seed, "metrics": {"test_accuracy": accuracy}}
        for seed, accuracy in enumerate(accuracies)
    ]
    seeds = Seeds(identity=run_.identity, runs=results)
    metrics = run_.metrics | {"test_loss": float(accuracies[0])}
    return run_._replace(seeds=seeds, metrics=metrics)


def test_the_report_shows_what_broke_what_was_fixed_and_which_confusions_grew(good_run):
    (first, mistake), *others = good_run.mistakes.items()
    broken = Mistake(7777, "5", "3", 0.625)
    base = good_run._replace(
        name="old_one", metrics=good_run.metrics | {"test_loss": 9}
    )
    head = good_run._replace(
        name="new",
        mistakes=dict(others) | {7777: broken},
        confusion=good_run.confusion | {("5", "3"): 1, ("0", "1"): 19},
    )
    comparison = compare(base, head)
    verdict = describe_verdict(base, head, comparison, 0.002)

    text = render_report(base, head, comparison, verdict, [], "")

    assert (comparison.fixed, comparison.broken) == ([first], [7777])
    _, confusions, broken_images, fixed_images = text.split("<details>")
    assert "| 5 as 3 | 0 | 1 | +1 |\n" in confusions
    assert "| 0 as 1 | 20 | 19 | -1 |\n" in confusions
    assert "Newly broken images (1 of 1)" in broken_images
    assert "| 7777 | 5 | 5 | 3 | 0.6250 |" in broken_images
    assert (
        "| prediction, old\\_one | prediction, new | confidence, new |" in broken_images
    )
    assert "Newly fixed images (1 of 1)" in fixed_images
    assert f"| {first} | 0 | 1 | 0 | 0.7500 |" in fixed_images
    assert "confidence, old\\_one" in fixed_images
    assert (mistake.label, mistake.predicted) == ("0", "1")


@pytest.mark.parametrize(("sign", "word"), [(1, "better"), (-1, "worse")])
def test_a_class_says_better_where_head_is_better(good_run, sign, word):
    sides = []
    for epochs, shift in ((1, 0.0), (2, 0.05 * sign)):
        run_ = good_run._replace(
            params={"epochs": epochs},
            metrics=good_run.metrics | {"test_loss": float(epochs)},
            classes=[ClassAccuracy("3", 0.5, 0.5, 149, 0.4, 0.6)],
        )
        results = [
            {
                "seed": seed,
                "metrics": {"test_accuracy": 0.5 + seed / 1000 + shift},
                "classes": {"3": 0.5 + seed / 1000 + shift},
            }
            for seed in range(5)
        ]
        sides.append(run_._replace(seeds=Seeds(identity=run_.identity, runs=results)))
    comparison = compare(*sides)
    verdict = describe_verdict(*sides, comparison, 0.002)

    text = render_report(*sides, comparison, verdict, [], "")

    assert verdict[0] == f"good → good: {word}"
    new = 0.502 + 0.05 * sign
    change = f"{0.05 * sign:+.4f} {'↑' if sign > 0 else '↓'} {word}"
    assert f"| 3 | 149 | 0.5020 ± 0.0016 | {new:.4f} ± 0.0016 | {change} |" in text
    assert (
        f"| test\\_accuracy | 0.5020 ± 0.0016 | {new:.4f} ± 0.0016 | {change} |" in text
    )


def test_the_report_on_100_classes_fits_into_a_comment(good_run):
    names = [f"a rather long name of a class, number {n}" for n in range(100)]
    confusion = {(a, b): 50 if a == b else 1 for a in names for b in names}
    sides = []
    for epochs, shift in ((1, 0), (2, 5000)):
        run_ = good_run._replace(
            name="a-branch-with-a-long-name",
            params={"epochs": epochs},
            confusion=confusion,
            classes=[ClassAccuracy(name, 0.5, 0.5, 149, 0.4, 0.6) for name in names],
            mistakes={
                n + shift: Mistake(n + shift, names[0], names[1], 0.5)
                for n in range(99)
            },
        )
        results = [
            {
                "seed": seed,
                "metrics": {"test_accuracy": 0.5 + seed / 100},
                "classes": dict.fromkeys(names, 0.5 + seed / 100),
            }
            for seed in range(5)
        ]
        sides.append(run_._replace(seeds=Seeds(identity=run_.identity, runs=results)))
    comparison = compare(*sides)

    verdict = describe_verdict(*sides, comparison, 0.002)
    results = gate.check(RULES, sides[1], comparison)

    text = render_report(*sides, comparison, verdict, results, "edits")
    assert text.count(names[99]) == 1
    assert len(text) < 65_536


def test_a_failed_gate_ends_with_an_error_and_the_report_is_there(seeded):
    result = report(seeded, "longer", "main", command="gate")

    assert result.returncode == 1
    *lines, error = result.stdout.splitlines()
    verdict = lines.index("longer → main: worse")
    assert lines[verdict + 1].startswith("Test accuracy changed by -70.50 points, ")
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
    assert "investigate: max_accuracy_loss: Each side has one seed" in result.stdout
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
    gate.PATH.write_text(text.replace(old, new))

    with pytest.raises(InputError, match=problem) as error:
        gate.load(None)
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
        (
            "plots/history.csv",
            "epoch,train_loss\n1,2\n",
            "history.csv is corrupt: ValueE",
        ),
        (
            "plots/history.csv",
            "epoch,train_loss,validation_loss,train_accuracy,"
            "validation_accuracy\n1,2,3,4,five\n",
            "corrupt: 0.validation_accuracy: ",
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
        "error: workspace: epochs in params.yaml is not the one these results were "
        "made with: run `dvc repro` first\n"
    )


def test_results_of_more_seeds_are_not_replaced_by_fewer(clone):
    runs = [{"seed": seed, "metrics": {"test_accuracy": 0.5}} for seed in range(6)]
    path = clone / "metrics/seeds.json"
    path.write_text(json.dumps({"identity": "of any settings", "runs": runs}))
    before = path.read_bytes()

    result = core_mlp("seeds", "5", cwd=clone)

    assert result.returncode == 1
    assert result.stdout == (
        "error: metrics/seeds.json has the results of 6 seeds: to replace them by "
        "those of 5, add --replace\n"
    )
    assert path.read_bytes() == before
    path.write_text("{}")
    result = core_mlp("seeds", "5", cwd=clone)
    assert result.returncode == 1
    assert result.stdout.startswith("error: metrics/seeds.json: corrupt: identity: ")
    discard_changes(clone)


@pytest.mark.usefixtures("fabricated")
def test_experiments_are_ranked_by_validation(clone):
    run("git", "checkout", "--quiet", "-B", "resized", "main", cwd=clone)
    text = (clone / "params.yaml").read_text()
    resized = text.replace("image_size:\n", "image_size: [8, 8]\n")
    (clone / "params.yaml").write_text(resized)
    text = (clone / "dvc.lock").read_text()
    assert "image_size:\n" in text
    resized = text.replace("image_size:\n", "image_size: [8, 8]\n")
    (clone / "dvc.lock").write_text(resized)
    for path, key, value in (
        ("metrics/train.json", "validation_accuracy", 0.9987),
        ("metrics/evaluate.json", "test_accuracy", 0.1234),
    ):
        metrics = json.loads((clone / path).read_text()) | {key: value}
        (clone / path).write_text(json.dumps(metrics))
    commit_all(clone, "Resized")
    run("git", "checkout", "--quiet", "main", cwd=clone)
    main = run("git", "rev-parse", "main", cwd=clone).strip()
    run("git", "checkout", "--quiet", "-B", "other-images", "resized", cwd=clone)
    for name in ("params.yaml", "dvc.lock"):
        text = (clone / name).read_text().replace("sklearn_digits", "other")
        # The hash of the test split.
        text = re.sub(r"(tfrecords/test\n +hash: md5\n +md5: )\w+", r"\g<1>0", text)
        (clone / name).write_text(text)
    commit_all(clone, "Other images")
    run("git", "checkout", "--quiet", "main", cwd=clone)
    for name in ("longer", "resized", "other-images"):
        ref = f"refs/exps/{main[:2]}/{main[2:]}/{name}-run"
        run("git", "update-ref", ref, name, cwd=clone)

    result = report(clone, "--experiments")

    assert result.returncode == 0, result.stdout
    best = "\nBest by validation on {}: {}\nThe best of {} by"
    assert best.format("sklearn_digits", "resized-run", "3 settings") in result.stdout
    assert best.format("other", "other-images-run", "1 setting") in result.stdout
    text = (clone / "report.md").read_text()
    rows = re.findall(r"(?m)^\| (\S+) \| (\d) \| ([\d.]+) \| ([\d.]+) \|(.*)", text)
    ranked = ["resized-run", "longer-run", "HEAD"]
    assert sorted(row[0] for row in rows) == sorted([*ranked, "other-images-run"])
    rows = [row for row in rows if row[0] != "other-images-run"]
    assert [row[0] for row in rows] == ranked
    assert rows[0][2:4] == ("0.9987", "0.1234")
    assert [row[4].split(" | ")[0] for row in rows] == [" \\[8, 8\\]", " null", " null"]
    validation = [float(row[2]) for row in rows]
    assert validation == sorted(validation, reverse=True)
    # A picture for each parameter that varies, even where it is null in one run.
    assert (clone / "report.html").read_text().count("data:image/png") == 2
    discard_changes(clone)


def test_equally_accurate_settings_are_ranked_by_loss(good_run):
    accuracies_and_losses = (0.97, 0.1), (0.98, 0.3), (0.98, 0.2)
    settings = [
        [
            good_run._replace(
                metrics={"validation_accuracy": accuracy, "validation_loss": loss}
            )
        ]
        for accuracy, loss in accuracies_and_losses
    ]

    ranked = sorted(settings, key=sweep.by_validation)

    assert ranked == [settings[2], settings[1], settings[0]]


def test_the_best_of_several_is_too_high_by_chance(good_run):
    rng = np.random.default_rng(0)
    runs = [
        {"seed": seed, "metrics": {"validation_accuracy": accuracy}}
        for seed, accuracy in enumerate(rng.normal(0.98, 0.002, 20))
    ]
    seeded = good_run._replace(seeds=Seeds(identity=good_run.identity, runs=runs))
    sd = np.std([row["metrics"]["validation_accuracy"] for row in runs], ddof=1)

    text = sweep.describe_selection([[good_run]] * 7 + [[seeded]])

    expected = 100 * sd * rng.normal(size=[100_000, 8]).max(axis=1).mean()
    bias = float(re.search(r"by ([\d.]+) points on average", text)[1])
    assert bias == pytest.approx(expected, abs=0.01)


@pytest.mark.slow
def test_seeds_are_run_and_summarized(workspace):
    run("core-mlp", "seeds", "5", cwd=workspace)

    seeds = json.loads((workspace / "metrics/seeds.json").read_text())
    assert [row["seed"] for row in seeds["runs"]] == [1, 2, 3, 4, 5]
    accuracies = [row["metrics"]["test_accuracy"] for row in seeds["runs"]]
    assert len(set(accuracies)) > 1
    assert seeds["summary"]["test_accuracy"]["mean"] == pytest.approx(
        sum(accuracies) / 5, abs=1e-6
    )
    assert seeds["runs"][0]["classes"].keys() == {str(digit) for digit in range(10)}
    assert len(read_run_in(workspace, None).results) == 5
    assert run("git", "diff", "--", "params.yaml", cwd=workspace) == ""
    # Again, where the experiments start with these results.
    commit_all(workspace, "Seeds")
    run("core-mlp", "seeds", "5", cwd=workspace)
    assert json.loads((workspace / "metrics/seeds.json").read_text()) == seeds
