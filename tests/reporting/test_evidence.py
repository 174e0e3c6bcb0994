"""Results that contradict each other, or the record of what they were made with."""

import json
import re

import pytest
from helpers import core_mlp, run
from made_up import edit_json, refuse

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import parse_yaml
from core_mlp.pipeline.provenance import find_contradictions, recorded
from core_mlp.reporting import evidence
from core_mlp.reporting.runs import read_run
from core_mlp.results.train import EpochResult


def edit_line(path, number, pattern, replacement):
    lines = path.read_text().splitlines()
    edited = re.sub(pattern, replacement, lines[number])
    assert edited != lines[number]
    lines[number] = edited
    path.write_text("\n".join(lines) + "\n")


def test_results_of_a_run_agree(in_project):
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
def test_a_metric_that_was_edited_is_refused(in_project, file, changes, problem):
    edit_json(in_project / file, **changes)

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
    in_project, file, line, pattern, replacement, problem
):
    edit_line(in_project / f"plots/{file}.csv", line, pattern, replacement)

    with pytest.raises(InputError, match=problem):
        read_run(None)


def test_a_mistake_that_was_deleted_is_refused(in_project):
    path = in_project / "plots/mistakes.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")

    with pytest.raises(InputError, match=r"plots/mistakes.csv and plots/confusion.csv"):
        read_run(None)


@pytest.mark.parametrize(
    ("path", "pattern", "replacement"),
    [
        ("metrics/evaluate.json", '("test_loss": .*),', r"\g<1>1,"),
        ("metrics/evaluate.json", '("litert_differences": ).*', r"\g<1>77"),
        ("plots/mistakes.csv", r",0.\d+$", ",0.5"),
        ("plots/data_problems.csv", r"^(test,also in train),.*", r"\1,7"),
    ],
)
def test_a_number_that_is_in_no_other_file_has_to_be_in_dvc_lock(
    in_project, path, pattern, replacement
):
    file = in_project / path
    old = file.read_text()
    file.write_text(re.sub(pattern, replacement, old, count=1, flags=re.M))
    assert file.read_text() != old

    problem = f"workspace: {path} is not the one in dvc.lock: run `dvc repro`"
    with pytest.raises(InputError, match=problem):
        read_run(None)


def test_a_picture_that_was_replaced_is_refused(in_project):
    (in_project / "plots/mistakes_sprite.png").write_bytes(b"another")

    with pytest.raises(InputError, match=r"mistakes_sprite.png is not the one"):
        read_run(None)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("train_loss", "differ in train_loss"),
        ("train_accuracy", "differ in train_accuracy"),
        ("validation_loss", "differ in validation_loss"),
        ("validation_accuracy", "differ in validation_accuracy"),
        ("test_accuracy", "has test_accuracy = "),
        ("test_accuracy_low", "has test_accuracy_low = "),
        ("test_accuracy_high", "has test_accuracy_high = "),
        ("test_balanced_accuracy", "differ in balanced accuracy"),
        ("test_calibration_error", "differ in calibration error"),
    ],
)
def test_a_metric_has_to_agree_to_five_decimals(true_run, name, problem):
    edited = true_run.metrics | {name: true_run.metrics[name] + 1e-5}

    refuse(true_run._replace(metrics=edited), problem)


@pytest.mark.parametrize("column", ["accuracy", "error_rate", "count", "low", "high"])
def test_each_column_of_each_class_has_to_agree(true_run, column):
    *others, last = true_run.classes
    edited = last._replace(**{column: getattr(last, column) + 1e-5})

    refuse(
        true_run._replace(classes=[*others, edited]),
        f"differ about class {last.label}",
    )


def test_each_class_has_to_be_there(true_run):
    refuse(true_run._replace(classes=true_run.classes[1:]), "have different classes")


def test_counts_have_to_be_those_of_images(true_run):
    first, second = true_run.class_names[:2]
    for counts in (
        {},
        true_run.confusion | {(first, "no class"): 1},
        true_run.confusion | {(first, second): -1},
    ):
        refuse(true_run._replace(confusion=counts), "confusion.csv lacks the pair")


def trained(run, accuracies, *, kept, numbers=None, **params):
    """Returns the run with an epoch for each validation accuracy, one of them kept."""
    numbers = numbers or range(1, len(accuracies) + 1)
    history = [
        EpochResult(
            epoch=number,
            train_loss=2.0 - accuracy,
            validation_loss=3.0 - accuracy,
            train_accuracy=accuracy,
            validation_accuracy=accuracy,
        )
        for number, accuracy in zip(numbers, accuracies, strict=True)
    ]
    (summary,) = [row.summary() for row in history if row.epoch == kept]
    return run._replace(
        history=history, metrics=run.metrics | summary, params=run.params | params
    )


@pytest.mark.parametrize(
    ("accuracies", "kept", "params"),
    [
        ([0.2, 0.4, 0.3], 3, {"epochs": 3}),
        ([0.2, 0.4, 0.3], 2, {"epochs": 9, "patience": 1}),
        ([0.2, 0.4, 0.4, 0.3], 2, {"epochs": 9, "patience": 2}),
        ([0.2, 0.4, 0.3], 2, {"epochs": 3, "patience": 2}),
        ([0.2, 0.3, 0.4], 3, {"epochs": 3, "patience": 2}),
    ],
)
def test_epochs_as_training_gives_them_are_believed(true_run, accuracies, kept, params):
    evidence.check(trained(true_run, accuracies, kept=kept, **params))


@pytest.mark.parametrize(
    ("accuracies", "kept", "params", "problem"),
    [
        ([0.2, 0.4, 0.3], 2, {"epochs": 3}, "has train_epochs = 2"),
        ([0.2, 0.4, 0.3], 3, {"epochs": 2}, "has 3 epochs, params.yaml gives 2"),
        ([0.2, 0.4, 0.3], 3, {"epochs": 4}, "has 3 epochs, params.yaml gives 4"),
        ([0.2, 0.4, 0.3], 3, {"epochs": 3, "patience": 2}, "has train_epochs = 3"),
        ([0.2, 0.4, 0.3], 2, {"epochs": 9, "patience": 2}, "params.yaml gives 4"),
        ([0.2, 0.4, 0.3], 2, {"epochs": 2, "patience": 5}, "params.yaml gives 2"),
    ],
)
def test_epochs_that_training_cannot_give_are_refused(
    true_run, accuracies, kept, params, problem
):
    refuse(trained(true_run, accuracies, kept=kept, **params), problem)


@pytest.mark.parametrize("numbers", [[1, 3], [2, 1], [1, 2, 2]])
def test_epochs_are_counted_from_one(true_run, numbers):
    accuracies = [0.3] * len(numbers)
    made_up = trained(true_run, accuracies, kept=1, numbers=numbers, patience=1)

    refuse(made_up, "has train_epochs = 1, plots/history.csv another")


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
def test_seeds_that_are_not_valid_are_one_line(in_project, text, problem):
    (in_project / "metrics/seeds.json").write_text(text)

    with pytest.raises(InputError, match=problem):
        read_run(None)


def test_a_key_that_is_no_text_is_one_line(in_project):
    params = in_project / "params.yaml"
    params.write_text(params.read_text() + "5: 1\n")

    with pytest.raises(InputError, match=r"workspace: params.yaml is corrupt: 5"):
        read_run(None)


def test_a_key_that_no_stage_has_is_named(in_project):
    """DVC itself says "up to date"."""
    params = in_project / "params.yaml"
    params.write_text(params.read_text() + "epoch: 7\n")

    problem = "workspace: epoch in params.yaml is not a parameter of any stage"
    with pytest.raises(InputError, match=problem):
        read_run(None)


@pytest.mark.parametrize("text", ["beta_1: 0.90", "beta_1: 9e-1", "beta_1: 9.0E-01"])
def test_another_way_to_write_a_number_is_the_same_setting(in_project, text):
    params = in_project / "params.yaml"
    identity = read_run(None).identity
    params.write_text(re.sub(r"beta_1: .*", text, params.read_text()))

    assert read_run(None).identity == identity


def test_zero_is_the_same_setting_as_a_float(in_project):
    params, lock = in_project / "params.yaml", in_project / "dvc.lock"
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


def test_a_record_is_that_of_the_start_of_a_run_that_succeeded(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    params, record = workspace / "params.yaml", workspace / "data/provenance/train.json"
    text, old = params.read_text(), record.read_text()
    params.write_text(text.replace("epochs: 1\n", "epochs: 2\n"))

    with pytest.raises(ZeroDivisionError), recorded("train"):
        _ = 1 / 0
    assert record.read_text() == old

    with recorded("train"):
        params.write_text(text.replace("epochs: 1\n", "epochs: 3\n"))
    assert json.loads(record.read_text())["params"]["params.yaml"]["epochs"] == 2


def test_a_stage_that_declares_no_record_has_none(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    record = workspace / "data/provenance/fetch.json"
    record.unlink()
    stages = workspace / "dvc.yaml"
    declared = "    - data/provenance/fetch.json\n"
    assert declared in stages.read_text()
    stages.write_text(stages.read_text().replace(declared, ""))

    with recorded("fetch"):
        pass

    assert not record.exists()
    stage = {"deps": [{"path": "a", "md5": "b"}], "outs": [{"path": "c", "md5": "d"}]}
    assert not [*find_contradictions({"fetch": stage, "empty": {}})]
