"""Results that contradict each other, or the record of what they were made with."""

import json
import re

import pytest
from helpers import core_mlp, run

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import parse_yaml
from core_mlp.reporting.runs import read_run


@pytest.fixture(scope="module")
def repository(pipeline, tmp_path_factory):
    """The pipeline's repository without its cache."""
    folder = tmp_path_factory.mktemp("evidence") / "clone"
    run("git", "clone", "--quiet", str(pipeline), str(folder), cwd=pipeline)
    return folder


@pytest.fixture
def clone(repository, monkeypatch):
    """The same, as the current folder; reset to its commit after the test."""
    monkeypatch.chdir(repository)
    yield repository
    run("git", "checkout", "--quiet", ".", cwd=repository)
    run("git", "clean", "--quiet", "--force", cwd=repository)


def edit_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_line(path, number, pattern, replacement):
    lines = path.read_text().splitlines()
    edited = re.sub(pattern, replacement, lines[number])
    assert edited != lines[number]
    lines[number] = edited
    path.write_text("\n".join(lines) + "\n")


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


def test_results_of_a_run_agree(clone):
    assert read_run(None).metrics == read_run("HEAD").metrics


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        (
            "metrics/evaluate.json",
            {"test_accuracy": 0.99},
            "metrics/evaluate.json has test_accuracy = 0.99, plots/confusion.csv gives",
        ),
        (
            "metrics/evaluate.json",
            {"test_accuracy_low": 0.05},
            "has test_accuracy_low = 0.05, plots/confusion.csv gives",
        ),
        (
            "metrics/evaluate.json",
            {"test_calibration_error": 0.001},
            "metrics/evaluate.json and plots/calibration.csv differ in calibration",
        ),
        (
            "metrics/train.json",
            {"validation_accuracy": 0.99},
            "train.json and plots/history.csv differ in validation_accuracy",
        ),
        (
            "metrics/train.json",
            {"train_epochs": 3},
            "metrics/train.json has train_epochs = 3, plots/history.csv another",
        ),
    ],
)
def test_a_metric_that_was_edited_is_refused(clone, file, changes, problem):
    edit_json(clone / file, **changes)

    with pytest.raises(InputError, match=re.escape(problem)) as error:
        read_run(None)
    assert str(error.value).startswith("workspace: its results contradict each other: ")


@pytest.mark.parametrize(
    ("file", "line", "pattern", "replacement", "problem"),
    [
        ("confusion", 1, r"\d+$", "999", "plots/confusion.csv gives"),
        ("per_class", 1, r",\d+,", ",999,", "differ about class"),
        ("per_class", 1, "^[^,]+", "another", "have different classes"),
        ("mistakes", 1, r",[^,]+,0", ",another,0", "have different mistakes"),
        ("calibration", 1, r",\d+$", ",999", "differ in image count"),
        ("history", 1, r"^1,[\d.]+", "1,0.5", "differ in train_loss"),
    ],
)
def test_a_table_that_was_edited_is_refused(
    clone, file, line, pattern, replacement, problem
):
    edit_line(clone / f"plots/{file}.csv", line, pattern, replacement)

    with pytest.raises(InputError, match=problem):
        read_run(None)


def test_a_mistake_that_was_deleted_is_refused(clone):
    path = clone / "plots/mistakes.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")

    with pytest.raises(InputError, match=r"plots/mistakes.csv and plots/confusion.csv"):
        read_run(None)


def test_seeds_like_the_runs_own_are_believed(clone):
    own = read_run(None).metrics["test_accuracy"]
    write_seeds(clone, [own - 0.01, own, own + 0.01, own + 0.02, own - 0.02])

    assert len(read_run(None).results) == 5


def test_seeds_unlike_the_runs_own_are_refused(clone):
    """For example those of a better base, with the identity of a worse head."""
    own = read_run(None).metrics["test_accuracy"]
    better = own + 0.4
    write_seeds(clone, [better - 0.01, better, better + 0.01, better, better + 0.01])

    with pytest.raises(InputError, match="which is improbable"):
        read_run(None)


def test_seeds_of_other_settings_are_not_compared_with_the_run(clone):
    write_seeds(clone, [0.97, 0.98], identity="another")

    assert len(read_run(None).results) == 1


def test_seeds_that_cannot_be_are_refused(clone):
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
        write_seeds(clone, [own, own], identity=identity, **changes)
        with pytest.raises(InputError, match=problem):
            read_run(None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"identity": "x", "runs": [{"seed": 1}]}', "seeds.json is corrupt"),
        ('{"identity": "x", "runs": 5}', "seeds.json is corrupt"),
        (
            '{"identity": "x", "runs": [{"seed": 1, "metrics": {"test_accuracy": NaN}},'
            '{"seed": 2, "metrics": {"test_accuracy": 1}}]}',
            "seeds.json is corrupt",
        ),
    ],
)
def test_seeds_that_are_not_valid_are_one_line(clone, text, problem):
    (clone / "metrics/seeds.json").write_text(text)

    with pytest.raises(InputError, match=problem):
        read_run(None)


def test_a_key_that_is_no_text_is_one_line(clone):
    params = clone / "params.yaml"
    params.write_text(params.read_text() + "5: 1\n")

    with pytest.raises(InputError, match=r"workspace: params.yaml is corrupt: 5"):
        read_run(None)


def test_a_key_that_no_stage_has_is_named(clone):
    """DVC itself says "up to date"."""
    params = clone / "params.yaml"
    params.write_text(params.read_text() + "epoch: 7\n")

    problem = "workspace: epoch in params.yaml is not a parameter of any stage"
    with pytest.raises(InputError, match=problem):
        read_run(None)


@pytest.mark.parametrize("text", ["beta_1: 0.90", "beta_1: 9e-1", "beta_1: 9.0E-01"])
def test_another_way_to_write_a_number_is_the_same_setting(clone, text):
    params = clone / "params.yaml"
    identity = read_run(None).identity
    params.write_text(re.sub(r"beta_1: .*", text, params.read_text()))

    assert read_run(None).identity == identity


def test_zero_is_the_same_setting_as_a_float(clone):
    params, lock = clone / "params.yaml", clone / "dvc.lock"
    identity = read_run(None).identity
    text = params.read_text()
    assert "weight_decay: 0.0\n" in text
    params.write_text(text.replace("weight_decay: 0.0\n", "weight_decay: 0\n"))
    assert read_run(None).identity == identity

    # As `dvc commit` writes it.
    text = lock.read_text().replace("weight_decay: 0.0\n", "weight_decay: 0\n")
    lock.write_text(text)
    assert read_run(None).identity == identity


@pytest.mark.parametrize(
    ("file", "old", "new", "stage"),
    [
        ("params.yaml", "learning_rate: 0.001\n", "learning_rate: 0.01\n", "train"),
        ("params.yaml", "quantize: true\n", "quantize: false\n", "export"),
        ("params.yaml", "channels:\n", "channels: 1\n", "fetch"),
        ("stages/preprocess.py", "import numpy", "import  numpy", "preprocess"),
        ("src/core_mlp/evaluation/metrics.py", "= 15", "= 16", "evaluate"),
    ],
)
def test_an_edit_that_was_saved_without_a_run_is_refused(
    workspace, file, old, new, stage
):
    path = workspace / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))

    run("dvc", "exp", "save", "--force", "--name", "saved", cwd=workspace)
    result = core_mlp("report", "HEAD", "saved", cwd=workspace)
    run("dvc", "exp", "remove", "saved", cwd=workspace)

    assert result.returncode == 1
    assert result.stdout.startswith(f"error: saved: the results of {stage} were made ")
    assert result.stdout.count("\n") == 1


def test_a_run_records_what_it_was_made_with(workspace):
    lock = parse_yaml((workspace / "dvc.lock").read_text())["stages"]
    for stage in ("fetch", "preprocess", "train", "export", "evaluate"):
        record = json.loads((workspace / f"data/provenance/{stage}.json").read_text())
        deps = {dep["path"]: dep["md5"] for dep in lock[stage]["deps"]}
        assert record["deps"] == deps
        params = lock[stage].get("params", {})
        assert record["params"].keys() == params.keys()
        assert record["params"].get("params.yaml") == params.get("params.yaml")
