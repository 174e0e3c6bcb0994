"""Verdict, report and model card, on real branches."""

import base64
import io
import json
import re
import resource

import numpy as np
import pytest
from helpers import commit_all, run
from made_up import (
    ACCURACIES,
    discard_changes,
    outcomes,
    read_run_in,
    report,
)
from PIL import Image
from scipy import stats

from core_mlp.data import sprites
from core_mlp.pipeline.errors import InputError
from core_mlp.reporting import model_card
from core_mlp.reporting.comparison import compare
from core_mlp.reporting.report import (
    count_trainings,
    describe_verdict,
    metric_rows,
    thumbnail,
)
from core_mlp.reporting.runs import Seeds
from core_mlp.reporting.significance import LOOKS
from core_mlp.results.evaluate import Mistake


def test_the_verdict_compares_settings_over_the_first_seeds_of_both_sides(seeded):
    result = report(seeded, "main", "longer")

    assert result.returncode == 0, result.stdout
    # The sixth seed is not at a look yet.
    old, new = ACCURACIES["main"], ACCURACIES["longer"][:5]
    test = stats.ttest_ind(new, old, equal_var=False)
    low, high = test.confidence_interval(1 - LOOKS[5])
    text = (seeded / "report.md").read_text()
    value = 100 * (np.mean(new) - np.mean(old))
    assert "## main → longer: better\n" in text
    assert (
        f"**Test accuracy changed by {value:+.2f} points, from the mean of 5 seeds of "
        "main to the mean of 5 seeds of longer.**\n\n**What to do: keep the "
        "change.**\n\nInterval of the difference: "
        f"{100 * low:+.2f} points to {100 * high:+.2f} points "
    ) in text
    assert "| test\\_accuracy | 0.0630 ± 0.0120 | 0.7700 ± 0.0158 | " in text
    assert "test\\_accuracy\\_low" not in text
    assert "| epochs | 1 | 12 |" in text
    assert "### Classes, over seeds" in text
    # The terminal and the page say the same.
    for line in text.splitlines()[2:5:2]:
        assert line.replace("*", "").replace("\\", "") in result.stdout
    assert "longer: better</h2>" in (seeded / "report.html").read_text()


@pytest.mark.parametrize("sides", [("main", "alone"), ("alone", "main")])
def test_one_seed_gives_a_first_impression_and_what_it_would_cost_to_decide(
    seeded, sides
):
    result = report(seeded, *sides)

    assert result.returncode == 0
    first = " → ".join(sides)
    assert f"{first}: first impression\nA first impression: test" in result.stdout
    # Five seeds of one side are known, one of the other.
    assert (
        f"\nWhat to do: run core-mlp decide {' '.join(sides)}, which trains 2 to 34 "
        "models, 2 if this is the true difference.\n" in result.stdout
    )
    text = (seeded / "report.md").read_text()
    assert "Classes, over seeds" not in text
    assert not re.search("[↑↓] (better|worse)", text)


def test_of_the_workspace_only_seeds_spare_trainings(seeded):
    """`core-mlp decide` trains seeds 1 to 3 of it: see test_decide.py."""
    alone, longer = (read_run_in(seeded, name) for name in ("alone", "longer"))
    workspace = alone._replace(name="workspace")

    assert count_trainings(alone, alone, 3) == 2 + 2
    assert count_trainings(alone, workspace, 3) == 2 + 3
    assert len(longer.results) == 6
    assert count_trainings(alone, longer._replace(name="workspace"), 8) == 7 + 2


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


def test_a_class_is_called_better_after_correction_for_their_number(seeded):
    assert report(seeded, "main", "longer").returncode == 0

    text = (seeded / "report.md").read_text()
    assert re.search(r"(?m)^\| 3 \| \d+ \|.*↑ better \|$", text)
    assert re.search(r"(?m)^\| 4 \| \d+ \|.*\| = \|$", text)


def test_without_seeds_nothing_is_decided(clone):
    result = report(clone, "main", "longer")

    assert result.returncode == 0
    text = (clone / "report.md").read_text()
    assert "## main → longer: first impression\n" in text
    assert "run core-mlp decide main longer, which trains 4 to 38 models.**" in text
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

    assert len(head.results) == 6
    assert head.own_result.metrics.items() < head.metrics.items()
    assert head.own_result.metrics != head.results[0].metrics
    assert len(head._replace(params=head.params | {"epochs": 13}).results) == 1
    assert len(head._replace(params=head.params | {"seed": 13}).results) == 6
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
    sprites.write_sprite(tmp_path / "sprite.png", images, columns=20)
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
    same_name = head._replace(test_split="f" * 32)
    assert compare(base, same_name).reason.endswith(
        "both on 360 of sklearn_digits, but its images or their split changed in "
        "between"
    )
    assert set(outcomes(other, found).values()) >= {"fail"}
    assert {row[3] for row in metric_rows(base, other, found)} == {""}


def test_seeds_of_other_settings_do_not_count_and_the_report_says_so(clone):
    base, head = read_run_in(clone, "main"), read_run_in(clone, "longer")
    seeds = Seeds(identity="another", runs=[base.own_result] * 5)

    for head_seeds, says_so in ((None, False), (seeds, True)):
        other = head._replace(seeds=head_seeds)
        found = compare(base, other)
        notes = describe_verdict(base, other, found, 0.002).notes
        assert found.status == "first impression"
        warning = "seeds.json of longer is from other parameters, code or data."
        assert any(warning in note for note in notes) is says_so


@pytest.mark.usefixtures("fabricated")
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


@pytest.mark.usefixtures("fabricated")
def test_test_images_among_the_training_ones_are_a_warning(clone):
    problems = clone / "plots/data_problems.csv"
    text = problems.read_text()
    assert "test,also in train,0" in text
    problems.write_text(text.replace("test,also in train,0", "test,also in train,7"))

    assert report(clone, "main").returncode == 0

    warning = "Warning: the train split also contains 7 test images."
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
