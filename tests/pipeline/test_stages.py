"""What a user sees of a stage: its log, or one line about an error."""

import json
import re
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from helpers import with_one_other_value, write_params
from matplotlib.image import imread
from PIL import Image

from core_mlp.data import arrays, tfrecords
from core_mlp.pipeline import errors, params
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.serving import litert, saved_model
from core_mlp.training import resume, step
from stages import evaluate, export, fetch, preprocess, train


def message_of(main):
    """Returns the one line with which a stage ends on bad input."""
    with pytest.raises(SystemExit) as ended, errors.exit_on_input_error():
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
    def read(split):
        folder = digits / "data/tfrecords" / split
        info = SplitInfo.read_split(folder)
        return info.num_examples, *tfrecords.read_split(folder, info)

    (num_train, *train), (num_validation, *validation), (num_test, *test) = map(
        read, ("train", "validation", "test")
    )
    assert (num_train, num_validation, num_test) == (1137, 300, 360)
    for index, name in enumerate(("images", "labels")):
        both = np.load(digits / f"data/raw/train/{name}.npy")
        np.testing.assert_array_equal(
            np.concatenate([validation[index], train[index]]), both
        )
        np.testing.assert_array_equal(
            test[index], np.load(digits / f"data/raw/test/{name}.npy")
        )


@pytest.mark.parametrize("size", [1437, 5000])
def test_validation_must_leave_something_to_train_on(digits, size):
    write_params(digits, validation_size=size)

    assert message_of(preprocess.main) == (
        f"error: params.yaml: validation_size = {size}: none of 1,437 images left for "
        "training"
    )


@pytest.mark.parametrize("a_stage", [fetch, preprocess, train])
def test_params_are_checked_before_anything_is_touched(digits, a_stage):
    before = sorted(digits.rglob("*"))
    write_params(digits, epochs=0)

    assert message_of(a_stage.main) == (
        "error: params.yaml: epochs = 0: input should be greater than or equal to 1"
    )
    assert sorted(digits.rglob("*")) == before


@pytest.mark.parametrize(
    ("a_stage", "file"),
    [
        (fetch, "params.yaml"),
        (preprocess, "data/raw/train/info.json"),
        (preprocess, "data/raw/train/images.npy"),
        (train, "data/tfrecords/train/info.json"),
        (export, "models/checkpoint/network.json"),
        (evaluate, "data/tfrecords/test/info.json"),
    ],
)
def test_a_missing_file_is_named(digits, a_stage, file):
    (digits / file).unlink(missing_ok=True)

    assert message_of(a_stage.main) == f"error: {file}: No such file or directory"


def flip_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("a_stage", "file"),
    [
        (preprocess, "data/raw/train/images.npy"),
        (preprocess, "data/raw/test/labels.npy"),
        (train, "data/tfrecords/train/train-00000-of-00001.tfrecord"),
        (train, "data/tfrecords/validation/validation-00000-of-00001.tfrecord"),
        (evaluate, "data/tfrecords/test/test-00000-of-00001.tfrecord"),
    ],
)
@pytest.mark.parametrize("damage", [flip_bit, truncate, Path.unlink])
def test_a_corrupt_file_is_named_and_nothing_is_touched(digits, a_stage, file, damage):
    damage(digits / file)
    before = sorted(digits.rglob("*"))

    message = message_of(a_stage.main)

    problem = "No such file" if damage is Path.unlink else "corrupt: its SHA-256"
    assert message.startswith(f"error: {file}: {problem}")
    assert sorted(digits.rglob("*")) == before


def test_a_training_that_diverges_writes_no_model(digits):
    write_params(digits, learning_rate=1.0, epsilon=1e-30, hidden_sizes=[64] * 40)
    before = sorted(digits.rglob("*"))

    assert re.fullmatch(
        r"error: training diverged: the loss of epoch \d+ is not finite; "
        "try a smaller learning_rate",
        message_of(train.main),
    )
    # Only the picture from before the first epoch.
    expected = sorted([*before, digits / "plots/distortions.png"])
    assert sorted(digits.rglob("*")) == expected


def test_an_unreadable_file_is_named(digits):
    (digits / "params.yaml").unlink()
    (digits / "params.yaml").mkdir()

    assert message_of(fetch.main) == "error: params.yaml: Is a directory"


def test_ctrl_c_ends_without_a_traceback():
    def interrupted():
        raise KeyboardInterrupt

    assert message_of(interrupted) == "error: interrupted"


def test_a_database_that_cannot_be_written_is_one_line():
    def full():
        raise sqlite3.OperationalError("database or disk is full")

    assert message_of(full) == "error: DVC's database: database or disk is full"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), errors.exit_on_input_error():
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


def test_the_history_is_written_after_each_epoch(digits, monkeypatch):
    write_params(digits, epochs=3)
    seen = []
    save_state = resume.save_state

    def look_and_save(*args):
        history = digits / "plots/history.csv"
        seen.append(len(history.read_text().splitlines()) if history.exists() else 0)
        save_state(*args)

    monkeypatch.setattr(resume, "save_state", look_and_save)
    train.main()

    # A header, and a line for each epoch before.
    assert seen == [0, 2, 3]
    assert json.loads((digits / "metrics/train.json").read_text())["train_epochs"] == 3


RECIPE = {
    "conv_filters": [4],
    "epochs": 5,
    "schedule": "cosine",
    "weight_decay": 0.1,
    "ema_decay": 0.9,
    "patience": 3,
    "augmentation": {"rotation": 10.0, "shift": 1.0, "elastic": 0.5},
}


@pytest.mark.slow
@pytest.mark.parametrize("memory_budget", [4096, 0], ids=["resident", "streaming"])
def test_a_recipe_resumes_with_the_same_bytes(digits, monkeypatch, memory_budget):
    epoch_data = train.input_pipeline.epoch_data
    monkeypatch.setattr(
        train.input_pipeline,
        "epoch_data",
        lambda folder, info, p: epoch_data(
            folder, info, p.model_copy(update={"memory_budget": memory_budget})
        ),
    )
    write_params(digits, **RECIPE)
    train.main()
    names = ("models/checkpoint/variables.data-00000-of-00001", "plots/history.csv")
    expected = [(digits / name).read_bytes() for name in names]
    save_state = resume.save_state

    def save_and_stop(path, modules, history):
        save_state(path, modules, history)
        if len(history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resume, "save_state", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            train.main()
    train.main()

    assert [(digits / name).read_bytes() for name in names] == expected


def test_distortions_are_shown_before_the_first_epoch(digits, monkeypatch):
    picture = digits / "plots/distortions.png"
    sizes = []
    save_state = resume.save_state

    def look_and_save(*args):
        sizes.append(imread(picture).shape[:2])
        picture.unlink()
        save_state(*args)

    monkeypatch.setattr(resume, "save_state", look_and_save)
    train.main()
    write_params(digits, augmentation={"shift": 1.0})
    train.main()

    # Nine images of 8 x 8 pixels, enlarged; then with eight draws each.
    assert sizes == [(9 * 56, 56), (9 * 56, 9 * 56)]


def test_the_seed_and_the_epoch_decide_the_order(digits, monkeypatch):
    seeds = []
    draw = train.input_pipeline.epoch_permutation
    monkeypatch.setattr(
        train.input_pipeline,
        "epoch_permutation",
        lambda count, seed: seeds.append(seed) or draw(count, seed),
    )
    write_params(digits, seed=9, epochs=3)
    train.main()

    assert seeds == [[9, 1], [9, 2], [9, 3]]


def test_more_images_than_the_memory_budget_are_streamed(digits, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 3000)
    # Noise, with a bright row that gives the label away.
    images = rng.integers(0, 100, [3000, 24, 24, 1], np.uint8)
    images[np.arange(3000), 2 * labels] = 255
    monkeypatch.setattr(tfrecords, "SHARD_BYTES", 2**18)
    info = SplitInfo(
        dataset="rows",
        version="1.0.0",
        image_shape=(24, 24, 1),
        class_names=tuple("0123456789"),
        num_examples=3000,
    )
    for split in ("train", "validation"):
        shutil.rmtree(digits / "data/tfrecords" / split)
        tfrecords.write_split(digits / "data/tfrecords" / split, info, images, labels)
    write_params(digits, seed=9, epochs=3, memory_budget=1)
    seeds, read = [], tfrecords.stream_split
    monkeypatch.setattr(
        tfrecords,
        "stream_split",
        lambda *a, seed, **options: (
            seeds.append(seed) or read(*a, seed=seed, **options)
        ),
    )
    outputs = []
    for _ in range(2):
        train.main()
        assert capsys.readouterr().out.startswith(
            "Streaming 3,000 images: they exceed memory_budget = 1 MiB\n"
        )
        outputs.append((digits / "plots/history.csv").read_bytes())

    assert outputs[0] == outputs[1]
    assert seeds == 2 * [[9, 1], [9, 2], [9, 3]]
    metrics = json.loads((digits / "metrics/train.json").read_text())
    assert metrics["validation_accuracy"] > 0.9


def test_a_run_is_described_by_everything_that_determines_it(digits, monkeypatch):
    train_params = params.load_params(params.TrainParams)
    info = SplitInfo.read(digits / "data/tfrecords/train/info.json")
    other_info = info.model_copy(update={"sha256": {"train-0": "f"}})
    code, other_code = digits / "code.py", digits / "other_code.py"
    code.write_text("# Code")
    other_code.write_text("# Other code")
    (digits / "dvc.yaml").write_text("vars:\n- requirements: packages.lock\n")
    (digits / "packages.lock").write_text("numpy==1.0\n")

    def run_hash(params=train_params, info=info, device="CPU", code=code):
        return resume.hash_texts(
            resume.describe_run(params, [info], device, code).values()
        )

    hashes = [
        run_hash(),
        run_hash(info=other_info),
        run_hash(device="GPU"),
        run_hash(code=other_code),
        *(run_hash(params=other) for other in with_one_other_value(train_params)),
    ]
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "0")
    hashes.append(run_hash())
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    with monkeypatch.context() as patch:
        patch.setattr(resume.tf, "__version__", "2.99")
        hashes.append(run_hash())
    (digits / "packages.lock").write_text("numpy==2.0\n")
    hashes.append(run_hash())
    (digits / "packages.lock").write_text("numpy==1.0\n")

    assert len(set(hashes)) == len(hashes)
    assert run_hash() == hashes[0]


def test_stages_replace_what_an_earlier_run_has_left(digits):
    write_params(digits, hidden_sizes=[8])

    # What fetch and preprocess wrote already exists.
    for module in (fetch, preprocess, *(train, export, evaluate) * 2):
        module.main()

    names = sorted(path.name for path in (digits / "models/checkpoint").iterdir())
    assert names == ["network.json", "variables.data-00000-of-00001", "variables.index"]


@pytest.mark.parametrize("choice", ["none", "balanced"])
def test_training_minimizes_the_loss_with_the_chosen_weights(
    digits, monkeypatch, choice
):
    class StoppedError(Exception):
        pass

    def stop(models, optimizer, objective, **_):
        raise StoppedError(objective.loss)

    monkeypatch.setattr(train.loop, "train", stop)
    write_params(digits, class_weights=choice)

    with pytest.raises(StoppedError) as stopped:
        train.main()

    [loss] = stopped.value.args
    if choice == "none":
        assert loss is step.cross_entropy
    else:
        folder = digits / "data/tfrecords/train"
        _, labels = tfrecords.read_split(folder, SplitInfo.read_split(folder))
        expected = len(labels) / 10 / np.bincount(labels)
        np.testing.assert_allclose(loss.keywords["class_weights"], expected)


def test_an_unknown_dataset_is_named_with_its_file(digits):
    write_params(digits, dataset="no_such_set")

    assert message_of(fetch.main) == (
        "error: params.yaml: dataset = no_such_set: TFDS has no dataset of that name "
        "(some that work are mnist, cifar10, sklearn_digits), and there are no "
        "images in data/source/no_such_set/CLASS/: data/source has no folders; with "
        "--temp or --queue, they must be in Git or DVC"
    )


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """A folder in which fetch has run on 120 images without a test split."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in "abc":
        folder = tmp_path / "data/source/pictures" / name
        folder.mkdir(parents=True)
        for index in range(40):
            noise = rng.integers(0, 256, [6, 6], np.uint8)
            Image.fromarray(noise).save(folder / f"{index}.png")
            # The same pixels in another file, some of them with another label.
            if index < 10:
                Image.fromarray(noise).save(folder / f"{index}.bmp")
            if name == "b" and index < 3:
                Image.fromarray(noise).save(folder.parent / f"a/b{index}.gif")
    write_params(
        tmp_path, dataset="pictures", channels=1, validation_size=25, test_size=20
    )
    fetch.main()
    return tmp_path


def read_splits(folder):
    """Returns contents and labels of each split."""
    splits = {}
    for split in ("train", "validation", "test"):
        path = folder / "data/tfrecords" / split
        images, labels = tfrecords.read_split(path, SplitInfo.read_split(path))
        splits[split] = [image.tobytes() for image in images], labels
    return splits


def test_a_test_split_is_held_out_where_there_is_none(pictures, capsys):
    preprocess.main()

    splits = read_splits(pictures)
    sizes = {split: len(labels) for split, (_, labels) in splits.items()}
    assert sum(sizes.values()) == 153
    assert 20 <= sizes["test"] <= 30
    assert 25 <= sizes["validation"] <= 38
    contents = {split: set(images) for split, (images, _) in splits.items()}
    assert len(set.union(*contents.values())) == 120
    assert sum(map(len, contents.values())) == 120
    for _, labels in splits.values():
        assert set(labels) == {0, 1, 2}
    # The first images of data/raw are those of the test split.
    raw = np.load(pictures / "data/raw/train/images.npy")
    assert {image.tobytes() for image in raw[:20]} <= contents["test"]
    log = capsys.readouterr().out
    repeated = sum(sizes.values()) - 120
    found = [int(n) for n in re.findall(r"warning: \w+: (\d+) repeated", log)]
    assert sum(found) == repeated
    labeled_twice = re.findall(r"warning: \w+: (\d+) with two labels", log)
    assert sum(map(int, labeled_twice)) == 9
    assert "also in" not in log


def test_a_test_image_moves_only_at_the_edge_when_an_image_is_added(pictures):
    preprocess.main()
    before = set(read_splits(pictures)["test"][0])
    noise = np.random.default_rng(9).integers(0, 256, [6, 6], np.uint8)
    Image.fromarray(noise).save(pictures / "data/source/pictures/a/new.png")

    fetch.main()
    preprocess.main()

    after = set(read_splits(pictures)["test"][0])
    assert len(before - after) <= 1
    assert after - before <= {noise.tobytes()}


def test_every_example_of_a_folder_has_its_file(pictures):
    preprocess.main()

    for split, (contents, _) in read_splits(pictures).items():
        folder = pictures / "data/tfrecords" / split
        files = tfrecords.read_files(folder, SplitInfo.read_split(folder))
        for file, content in zip(files, contents, strict=True):
            with Image.open(pictures / "data/source/pictures" / file) as image:
                assert image.convert("L").tobytes() == content


def test_a_mistake_has_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    info = SplitInfo(
        dataset="pictures",
        version="folder",
        image_shape=(2, 2, 1),
        class_names=("a", "b"),
        num_examples=3,
    )
    names = (b"test/a/1.png", b'b, "c"/</script>\n\xff.png', b"b/\xc3\xa9.png")
    test_folder = Path("data/tfrecords/test")
    test_folder.parent.mkdir(parents=True)
    images, labels = np.zeros([3, 2, 2, 1], np.uint8), np.array([0, 1, 1])
    tfrecords.write_split(test_folder, info, images, labels, files=np.array(names))
    answers = {"classes": np.zeros(3, int), "probabilities": np.full([3, 2], 0.5)}
    for module in (saved_model, litert):  # They take everything for an "a".
        monkeypatch.setattr(
            module, "load_classifier", lambda path: lambda images: answers
        )

    evaluate.main()

    assert Path("plots/mistakes.csv").read_text(encoding="utf-8") == (
        "index,label,predicted,confidence,file\n"
        '1,b,a,0.5,"b, ""c""/\u2039/script>\\n\\udcff.png"\n'
        "2,b,a,0.5,b/é.png\n"
    )


def test_held_out_images_must_leave_something_to_train_on(pictures):
    write_params(pictures, dataset="pictures", validation_size=100, test_size=60)

    assert message_of(preprocess.main) == (
        "error: params.yaml: test_size + validation_size = 160: none of 153 images "
        "left for training"
    )


def test_the_problems_of_the_data_are_counted(digits):
    for split in ("train", "test"):
        folder = digits / "data/raw" / split
        info, images, labels = arrays.read_arrays(folder)
        images, labels = images.copy(), labels.copy()
        images[5:7] = 0  # Two images of one color, which are equal.
        labels[5:7] = 3
        if split == "test":
            images[8] = np.load(digits / "data/raw/train/images.npy")[700]
        shutil.rmtree(folder)
        arrays.write_arrays(folder, info, arrays.batch_writer([(images, labels)]))

    preprocess.main()

    text = (digits / "plots/data_problems.csv").read_text()
    header, *lines = text.splitlines()
    assert header == "split,problem,count"
    assert len(lines) == 18
    assert "validation,repeated,1" in lines
    assert "validation,also in test,2" in lines
    assert "validation,of one color,2" in lines
    assert "train,of one color,0" in lines
    assert "test,also in train,1" in lines
    assert "test,also in validation,2" in lines
    assert "test,missing classes,0" in lines


def test_rare_classes_are_named(digits, capsys):
    folder = digits / "data/raw/train"
    info, images, labels = arrays.read_arrays(folder)
    # More than a hundred images of most classes; the last few of 1, 3 and 4, none of 2.
    kept = np.ones(len(labels), bool)
    for label, number in {1: 3, 2: 0, 3: 4, 4: 5}.items():
        of_class = np.flatnonzero(labels == label)
        kept[of_class[: len(of_class) - number]] = False
    images, labels = images[kept], labels[kept]
    info = info.model_copy(update={"num_examples": len(labels)})
    shutil.rmtree(folder)
    arrays.write_arrays(folder, info, arrays.batch_writer([(images, labels)]))
    write_params(digits, validation_size=50)

    preprocess.main()

    [line] = re.findall("(?m)^warning: train: rarer .*", capsys.readouterr().out)
    assert line == (
        "warning: train: rarer than a tenth of the commonest class: 1, 3, 4; see "
        "test_balanced_accuracy and class_weights"
    )
