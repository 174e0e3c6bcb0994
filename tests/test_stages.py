"""What a user sees of a stage: its log, and one line for what is wrong."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import with_one_other_value, write_params

from core_mlp import errors, params, records
from core_mlp.descriptions import DatasetInfo
from stages import evaluate, export, fetch, preprocess, train


def message_of(main):
    """Returns the one line with which a stage ends on bad input."""
    with pytest.raises(SystemExit) as ended, errors.exit_on_bad_input():
        main()
    assert isinstance(ended.value.code, str)  # Python prints it and exits with 1.
    assert "\n" not in ended.value.code
    return ended.value.code


@pytest.fixture
def digits(digits_dir, tmp_path, monkeypatch):
    """A copy of a folder in which fetch and preprocess have run."""
    folder = shutil.copytree(digits_dir, tmp_path / "digits")
    monkeypatch.chdir(folder)
    return folder


def test_validation_is_the_start_of_train(digits):
    def read(split, count):
        images, labels = records.read_split(
            digits / "data/tfrecords",
            split,
            num_examples=count,
            image_shape=(8, 8, 1),
            num_classes=10,
        )
        return images, labels

    for kind, validation, rest, test in zip(
        ("images", "labels"),
        read("validation", 300),
        read("train", 1137),
        read("test", 360),
        strict=True,
    ):
        both = np.load(digits / f"data/raw/train_{kind}.npy")
        np.testing.assert_array_equal(np.concatenate([validation, rest]), both)
        np.testing.assert_array_equal(
            test, np.load(digits / f"data/raw/test_{kind}.npy")
        )


@pytest.mark.parametrize("size", [1437, 5000])
def test_validation_must_leave_something_to_train_on(digits, size):
    write_params(digits, validation_size=size)

    assert message_of(preprocess.main) == (
        f"error: params.yaml: validation_size = {size}: at most 1436, so that "
        "sklearn_digits has an image left to train on"
    )


@pytest.mark.parametrize("stage", [fetch, preprocess, train])
def test_params_are_checked_before_anything_is_touched(digits, stage):
    before = sorted(digits.rglob("*"))
    write_params(digits, epochs=0)

    assert message_of(stage.main) == (
        "error: params.yaml: epochs = 0: input should be greater than or equal to 1"
    )
    assert sorted(digits.rglob("*")) == before


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        (fetch, "params.yaml"),
        (preprocess, "data/raw/info.json"),
        (preprocess, "data/raw/train_images.npy"),
        (train, "data/tfrecords/info.json"),
        (export, "models/checkpoint/network.json"),
        (evaluate, "data/tfrecords/info.json"),
    ],
)
def test_a_missing_file_is_named(digits, stage, file):
    (digits / file).unlink(missing_ok=True)

    assert message_of(stage.main) == f"error: {file}: No such file or directory"


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        (preprocess, "data/raw/train_images.npy"),
        (preprocess, "data/raw/test_labels.npy"),
        (train, "data/tfrecords/train-00000-of-00001.tfrecord"),
        (train, "data/tfrecords/validation-00000-of-00001.tfrecord"),
        (evaluate, "data/tfrecords/test-00000-of-00001.tfrecord"),
    ],
)
@pytest.mark.parametrize("damage", [flip_bit, truncate, Path.unlink])
def test_a_damaged_file_is_named_and_nothing_is_touched(digits, stage, file, damage):
    damage(digits / file)
    before = sorted(digits.rglob("*"))

    message = message_of(stage.main)

    problem = "No such file" if damage is Path.unlink else "damaged, or of another"
    assert message.startswith(f"error: {file}: {problem}")
    assert sorted(digits.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda images, labels: (images[:-1], labels), "_images.npy: uint8 [1436, 8, "),
        (
            lambda images, labels: (images[:, :, :7], labels),
            "_images.npy: uint8 [1437, ",
        ),
        (lambda images, labels: (images * 1.0, labels), "_images.npy: float64 [1437, "),
        (
            lambda images, labels: (images, labels[:-1]),
            "_labels.npy: int64 [1436]; info",
        ),
        (
            lambda images, labels: (images, labels + 1),
            "_labels.npy: a label is outside",
        ),
        (
            lambda images, labels: (images, labels - 1),
            "_labels.npy: a label is outside",
        ),
    ],
)
def test_arrays_that_are_not_what_they_say_are_refused(digits, change, problem):
    raw = digits / "data/raw"
    arrays = change(*(np.load(raw / f"train_{k}.npy") for k in ("images", "labels")))
    for kind, array in zip(("images", "labels"), arrays, strict=True):
        np.save(raw / f"train_{kind}.npy", array)
    info = DatasetInfo.read(raw / "info.json")
    (raw / "info.json").unlink()
    info.with_digests(raw).write(raw / "info.json")

    assert f"error: data/raw/train{problem}" in message_of(preprocess.main)


def test_a_description_without_a_split_is_refused(digits):
    path = digits / "data/tfrecords/info.json"
    path.write_text(path.read_text().replace('"validation', '"valid'))

    assert message_of(train.main) == (
        "error: data/tfrecords: its description has no files of validation"
    )


def test_a_training_that_diverges_writes_no_model(digits):
    write_params(digits, learning_rate=1.0, epsilon=1e-30, hidden_sizes=[64] * 40)
    before = sorted(digits.rglob("*"))

    assert re.fullmatch(
        r"error: training diverged: the loss of epoch \d+, step \d+ is not finite; "
        "try a smaller learning_rate",
        message_of(train.main),
    )
    assert sorted(digits.rglob("*")) == before


def test_an_unreadable_file_is_named(digits):
    (digits / "params.yaml").unlink()
    (digits / "params.yaml").mkdir()

    assert message_of(fetch.main) == "error: params.yaml: Is a directory"


def test_ctrl_c_ends_without_a_traceback():
    def interrupted():
        raise KeyboardInterrupt

    assert message_of(interrupted) == "error: interrupted"


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), errors.exit_on_bad_input():
        1 / 0  # noqa: B018


def test_train_says_where_it_runs_and_reports_each_epoch(digits, capsys):
    write_params(digits, epochs=3, hidden_sizes=[32, 16])

    train.main()

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Training 2,778 parameters on CPU"
    assert len(lines) == 4
    for epoch, line in enumerate(lines[1:], start=1):
        assert line.startswith(f"Epoch {epoch}/3: train loss ")
        assert line.endswith(" images/s")
    assert len((digits / "plots/history.csv").read_text().splitlines()) == 4


def test_more_images_than_the_memory_budget_are_streamed(digits, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 3000)
    # Noise, with a bright row that gives the label away.
    images = rng.integers(0, 100, [3000, 24, 24, 1], np.uint8)
    images[np.arange(3000), 2 * labels] = 255
    monkeypatch.setattr(records, "SHARD_BYTES", 2**18)
    shutil.rmtree(digits / "data/tfrecords")
    (digits / "data/tfrecords").mkdir()
    for split in ("train", "validation"):
        records.write_split(digits / "data/tfrecords", split, images, labels)
    DatasetInfo(
        dataset="rows",
        version="1.0.0",
        image_shape=(24, 24, 1),
        class_names=tuple("0123456789"),
        num_examples={"train": 3000, "validation": 3000},
    ).with_digests(digits / "data/tfrecords").write(digits / "data/tfrecords/info.json")
    write_params(digits, epochs=3, memory_budget=1)
    outputs = []
    for _ in range(2):
        train.main()
        assert capsys.readouterr().out.startswith(
            "Streaming 3,000 images: they take more than memory_budget = 1 MiB\n"
        )
        outputs.append((digits / "plots/history.csv").read_bytes())

    assert outputs[0] == outputs[1]
    metrics = json.loads((digits / "metrics/train.json").read_text())
    assert metrics["validation_accuracy"] > 0.9


def test_a_state_is_of_one_run_only(digits, monkeypatch):
    train_params = params.load_params(params.TrainParams)
    info = DatasetInfo.read(digits / "data/tfrecords/info.json")
    other_info = info.model_copy(update={"sha256": info.sha256 | {"train-0": "f"}})

    keys = [
        train.run_key(train_params, info, "CPU"),
        train.run_key(train_params, other_info, "CPU"),
        train.run_key(train_params, info, "GPU"),
    ]
    keys += [
        train.run_key(other, info, "CPU")
        for other in with_one_other_value(train_params)
    ]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    keys.append(train.run_key(train_params, info, "CPU"))
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    monkeypatch.setattr(train.tf, "__version__", "2.99")
    keys.append(train.run_key(train_params, info, "CPU"))
    monkeypatch.undo()
    code = digits / "code.py"
    code.write_text("# Other code")
    monkeypatch.setattr(train, "__file__", str(code))
    keys.append(train.run_key(train_params, info, "CPU"))

    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    assert train.run_key(train_params, info, "CPU") == keys[0]


def test_stages_replace_what_an_earlier_run_has_left(digits):
    write_params(digits, hidden_sizes=[8])

    # What fetch and preprocess wrote is there already.
    for stage in (fetch, preprocess, *(train, export, evaluate) * 2):
        stage.main()

    names = sorted(path.name for path in (digits / "models/checkpoint").iterdir())
    assert names == ["network.json", "variables.data-00000-of-00001", "variables.index"]


def test_an_unknown_dataset_is_named_with_its_file(digits):
    write_params(digits, dataset="no_such_set")

    assert message_of(fetch.main) == (
        "error: params.yaml: dataset = no_such_set: neither TFDS nor core_mlp.datasets "
        "has a dataset of that name"
    )
