"""Datasets from TFDS, from archives, and what is refused."""

import errno
import gzip
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import ROOT
from sklearn.datasets import load_digits

from core_mlp.data import arrays
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.sources import tfds as sources
from core_mlp.sources.digits import SklearnDigits

ARCHIVES = ROOT / "data/source/mnist"


def prepare(builder, archives):
    """Prepares a dataset; returns the builder to read it from."""
    scratch_dir = tempfile.mkdtemp(dir=archives.parent)
    return sources.prepare_dataset(builder, archives, Path(scratch_dir))


@pytest.fixture
def archives_dir(tmp_path):
    shutil.copytree(ARCHIVES, tmp_path / "archives/mnist")
    return tmp_path / "archives"


def test_sklearn_digits_are_those_of_scikit_learn(digits_dir):
    raw = digits_dir / "data/raw"
    images, labels = (
        np.concatenate([np.load(raw / split / name) for split in ("train", "test")])
        for name in ("images.npy", "labels.npy")
    )

    for split, num_examples in (("train", 1437), ("test", 360)):
        info = SplitInfo.read_split(raw / split)
        assert sorted(info.sha256) == ["images.npy", "labels.npy"]
        assert info.model_copy(update={"sha256": {}}) == SplitInfo(
            dataset="sklearn_digits",
            version="1.0.0",
            image_shape=(8, 8, 1),
            class_names=tuple("0123456789"),
            num_examples=num_examples,
        )
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    # TFDS shuffles within a split; in gray levels 0 to 16, each image occurs once.
    found = {
        (np.round(i / (255 / 16)).astype(int).tobytes(), label)
        for i, label in zip(images, labels, strict=True)
    }
    digits = load_digits()
    expected = {
        (image[..., np.newaxis].astype(int).tobytes(), label)
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    assert found == expected
    assert len(images) == 1797
    assert (images.min(), images.max()) == (0, 255)


def test_the_embedded_archives_are_the_originals():
    builder, archives, shape = sources.find_dataset("mnist", ARCHIVES.parent)

    assert shape == (28, 28, 1)
    files = [Path(url).name for url in builder.url_infos]
    assert sorted(files) == sorted(path.name for path in archives.iterdir())
    with gzip.open(ARCHIVES / "train-images-idx3-ubyte.gz") as file:
        assert file.read(4) == b"\x00\x00\x08\x03"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="truncated"),
        pytest.param(
            lambda content: content[:99] + b"?" + content[100:], id="corrupted"
        ),
        pytest.param(lambda content: b"", id="empty"),
    ],
)
def test_a_corrupt_archive_is_refused_and_nothing_is_made(archives_dir, damage):
    path = archives_dir / "mnist/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))

    builder, archives, _ = sources.find_dataset("mnist", archives_dir)

    with pytest.raises(InputError, match=r"has wrong checksum") as error:
        prepare(builder, archives)

    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not builder.data_path.exists()


def test_without_archives_and_network_the_message_says_what_to_put_where(
    tmp_path, monkeypatch, capsys
):
    def fail(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    builder, archives, _ = sources.find_dataset("fashion_mnist", tmp_path)
    monkeypatch.setattr(builder, "download_and_prepare", fail)

    with pytest.raises(InputError) as error:
        prepare(builder, archives)

    message = str(error.value)
    names = [path.name for path in ARCHIVES.iterdir()]
    announced = capsys.readouterr().out
    assert "ConnectionError: no route;" in message
    assert f"put into {tmp_path / 'fashion_mnist'}: " in message
    assert all(name in message and name in announced for name in names)
    assert "\n" not in message


def test_an_unknown_dataset_is_refused():
    with pytest.raises(InputError, match="dataset = no_such_set: TFDS has no") as error:
        sources.find_dataset("no_such_set", ARCHIVES.parent)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mnist:9.9.9", "emnist/no_such_config"])
def test_an_unknown_version_or_config_is_one_line(name):
    with pytest.raises(InputError, match=f"^params.yaml: dataset = {name}: ") as error:
        sources.find_dataset(name, ARCHIVES.parent)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-100], lambda content: b""]
)
def test_a_corrupt_prepared_dataset_is_named(tmp_path, damage):
    builder = prepare(SklearnDigits(data_dir=tmp_path), tmp_path / "none")
    (shard,) = Path(builder.data_path).glob("*-test.tfrecord*")
    shard.write_bytes(damage(shard.read_bytes()))

    with pytest.raises(InputError, match=f"^{builder.data_path}: corrupt; delete it"):
        list(sources._read_batches(builder, "test", (8, 8, 1)))


@pytest.mark.parametrize("name", ["imdb_reviews", "coco_captions"])
def test_a_dataset_without_images_and_labels_is_refused(name):
    with pytest.raises(InputError, match="needs the features image, uint8, and"):
        sources.find_dataset(name, ARCHIVES.parent)


class Pictures(tfds.core.GeneratorBasedBuilder):
    """Images of different sizes, as in tf_flowers, without a test split."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE = (None, None, 3)
    SPLIT = "train"

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.SHAPE),
            "label": tfds.features.ClassLabel(names=["red", "blue"]),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {self.SPLIT: self._generate_examples()}

    def _generate_examples(self):
        for index in range(20):
            image = np.zeros([8 + index, 40, 3], np.uint8)
            image[..., 2 * (index % 2)] = 200
            yield index, {"image": image, "label": index % 2}


class GrayPictures(Pictures):
    """Images with any number of channels."""

    SHAPE = (None, None, None)


class TestOnly(Pictures):
    """A dataset without a train split."""

    __test__ = False
    SPLIT = "test"


def read_examples(split, folder):
    """Returns the images and labels of a split, by way of what fetch writes."""
    arrays.write_arrays(folder, split.info, split.write_images)
    _, images, labels = arrays.read_arrays(folder)
    return images, labels


def test_images_of_different_sizes_are_resized_and_converted(tmp_path):
    builder, archives, shape = sources.find_dataset("pictures", tmp_path, [8, 10])
    prepare(builder, archives)

    (split,) = sources.read_splits(builder, shape)
    images, labels = read_examples(split, tmp_path / "raw")

    assert split.name == "train"
    assert split.info.image_shape == (8, 10, 3)
    assert images.shape == (20, 8, 10, 3)
    assert images.dtype == np.uint8
    for image, label in zip(images, labels, strict=True):
        # Nothing else, such as padding.
        assert (image == [[200, 0, 0], [0, 0, 200]][label]).all()
    _, _, gray = sources.find_dataset("pictures", tmp_path, [8, 10], 1)
    (split,) = sources.read_splits(builder, gray)
    images, _ = read_examples(split, tmp_path / "gray")
    assert split.info.image_shape == images.shape[1:] == (8, 10, 1)


@pytest.mark.parametrize(
    ("name", "image_size", "problem"),
    [
        ("pictures", None, r"image_size = null: .*: set image_size$"),
        ("gray_pictures", [8, 8], "channels = null: .*: set channels$"),
    ],
)
def test_images_of_different_sizes_need_a_parameter(
    tmp_path, name, image_size, problem
):
    with pytest.raises(InputError, match=problem) as error:
        sources.find_dataset(name, tmp_path, image_size)

    assert "\n" not in str(error.value)


def test_images_of_one_size_are_resized_and_converted(tmp_path):
    builder = prepare(SklearnDigits(data_dir=tmp_path), tmp_path / "none")

    def read(shape):
        _, test = sources.read_splits(builder, shape)
        return test.info, read_examples(test, tmp_path / f"raw {shape}")[0]

    shape = sources._output_shape(builder, [16, 16], 3)
    splits = [split for split, *_ in sources.read_splits(builder, shape)]
    assert splits == ["train", "test"]
    kept_info, kept = read(sources._output_shape(builder, None, None))
    resized_info, resized = read(shape)

    assert kept_info.image_shape == kept.shape[1:] == (8, 8, 1)
    assert resized_info.image_shape == resized.shape[1:] == shape == (16, 16, 3)
    # Interpolation keeps the mean, and the values far from any edge.
    assert abs(resized.mean() - kept.mean()) < 3
    assert np.corrcoef(resized[:, ::2, ::2, 0].ravel(), kept.ravel())[0, 1] > 0.8


@pytest.mark.parametrize(
    ("dataset", "shape", "side"),
    [
        ("mnist", (28, 28, 1), 20),
        ("mnist", (28, 28, 3), None),
        ("mnist", (14, 14, 1), None),
        ("pets", (28, 28, 1), None),
    ],
)
def test_only_images_as_mnist_has_them_are_drawings(dataset, shape, side):
    info = SimpleNamespace(
        full_name=f"{dataset}/1.0.0",
        version="1.0.0",
        features={"label": SimpleNamespace(names=["a", "b"])},
        splits={"train": SimpleNamespace(num_examples=7)},
    )

    ((_, split_info, *_),) = sources.read_splits(SimpleNamespace(info=info), shape)

    assert split_info.drawing_side == side


def test_a_dataset_without_a_train_split_is_refused(tmp_path):
    builder, *_ = sources.find_dataset("test_only", tmp_path, [8, 8])

    with pytest.raises(InputError, match="no split train, but test"):
        prepare(builder, tmp_path)


def test_an_empty_split_is_refused(tmp_path, monkeypatch):
    builder = prepare(SklearnDigits(data_dir=tmp_path), tmp_path / "none")
    monkeypatch.setattr(tfds.core.SplitInfo, "num_examples", 0)

    with pytest.raises(
        InputError, match="sklearn_digits: num_examples: Input should be greater"
    ):
        next(sources.read_splits(builder, (8, 8, 1)))


def test_images_without_a_label_are_refused(tmp_path, monkeypatch):
    builder = SklearnDigits(data_dir=tmp_path)
    generate = SklearnDigits._generate_examples
    monkeypatch.setattr(
        SklearnDigits,
        "_generate_examples",
        lambda self, examples: generate(self, [(i, -1) for i, _ in examples]),
    )
    builder = prepare(builder, tmp_path / "none")

    with pytest.raises(InputError, match="test has images without a label"):
        list(sources._read_batches(builder, "test", (8, 8, 1)))


def test_a_dataset_of_ours_is_prepared_again_when_its_code_has_changed(
    tmp_path, monkeypatch
):
    def labels():
        builder = prepare(SklearnDigits(data_dir=tmp_path), tmp_path / "none")
        return np.concatenate(
            [b for _, b in sources._read_batches(builder, "test", (8, 8, 1))]
        )

    before = labels()
    generate = SklearnDigits._generate_examples
    monkeypatch.setattr(
        SklearnDigits,
        "_generate_examples",
        lambda self, examples: generate(self, [(i, 9 - n) for i, n in examples]),
    )

    np.testing.assert_array_equal(labels(), 9 - before)


def make_read_only(monkeypatch):
    """Makes writing fail as for another user, even if this user may do everything."""

    def fail(path, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for name in ("mkdir", "makedirs", "rename"):
        monkeypatch.setattr(os, name, fail)
    monkeypatch.setattr(sources, "process_lock", fail)


def test_a_prepared_dataset_of_another_user_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    builder, archives, _ = sources.find_dataset("pictures", tmp_path, [8, 8])
    prepare(builder, archives)
    make_read_only(monkeypatch)

    builder, archives, shape = sources.find_dataset("pictures", tmp_path, [8, 8])
    prepared = sources.prepare_dataset(builder, archives, tmp_path)

    (split,) = sources.read_splits(prepared, shape)
    monkeypatch.undo()
    images, _ = read_examples(split, tmp_path / "raw")
    assert len(images) == split.info.num_examples == 20


def test_a_tfds_folder_of_another_user_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    builder, archives, _ = sources.find_dataset("pictures", tmp_path, [8, 8])
    make_read_only(monkeypatch)

    with pytest.raises(InputError) as error:
        sources.prepare_dataset(builder, archives, tmp_path)

    message = str(error.value)
    start = f"TFDS_DATA_DIR = {tmp_path}/tfds: pictures is not prepared there, and can"
    assert message.startswith(start)
    assert message.endswith(": Permission denied: set it to a folder of your own")


def test_a_dataset_that_another_process_has_just_prepared_is_read(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    builder, archives, shape = sources.find_dataset("pictures", tmp_path, [8, 8])

    @contextmanager
    def wait(path, work):
        prepare(sources.find_dataset("pictures", tmp_path, [8, 8])[0], archives)
        monkeypatch.setattr(sources, "_download_and_prepare", None)
        yield

    process_lock = sources.process_lock
    monkeypatch.setattr(
        sources,
        "process_lock",
        lambda *args: (
            monkeypatch.setattr(sources, "process_lock", process_lock) or wait(*args)
        ),
    )

    prepared = sources.prepare_dataset(builder, archives, tmp_path)

    ((_, info, *_),) = sources.read_splits(prepared, shape)
    assert info.num_examples == 20


def test_a_half_prepared_dataset_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    builder, archives, _ = sources.find_dataset("pictures", tmp_path, [8, 8])
    Path(builder.data_path).mkdir(parents=True)

    with pytest.raises(InputError) as error:
        prepare(builder, archives)

    problem = f"no split train, but none, in {builder.data_path}"
    assert str(error.value) == f"dataset = pictures: {problem}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("~/x", "/home/me/x/core_mlp"),
        ("~/x/", "/home/me/x/core_mlp"),
        ("~", "/home/me/core_mlp"),
        ("", "/home/me/tensorflow_datasets/core_mlp"),
        ("x/", "{cwd}/x/core_mlp"),
        ("/x/y", "/x/y/core_mlp"),
    ],
)
def test_the_home_folder_in_tfds_data_dir_is_understood(
    tmp_path, monkeypatch, value, expected
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", value)

    builder, _, _ = sources.find_dataset("mnist", ARCHIVES.parent)

    assert str(builder.data_path).startswith(expected.format(cwd=tmp_path) + "/")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["~/x", "~/x/"])
def test_no_folder_named_like_the_home_folder_is_made(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", value)
    builder, _, _ = sources.find_dataset("pictures", tmp_path, [8, 8])

    sources.prepare_dataset(builder, tmp_path / "none", tmp_path)

    assert sorted(os.listdir("home/x")) == ["core_mlp", "downloads"]
    assert os.listdir() == ["home"]


def test_an_unknown_home_folder_is_one_line(monkeypatch):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", "~nobody_of_that_name/x")

    with pytest.raises(InputError, match=r"^TFDS_DATA_DIR = ~nobody_of_that_name/x: "):
        sources.find_dataset("mnist", ARCHIVES.parent)


def test_a_dataset_of_ours_needs_no_tfds_folder(tmp_path, monkeypatch):
    (tmp_path / "tfds").mkdir()
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    builder, archives, shape = sources.find_dataset("sklearn_digits", tmp_path)

    prepared = sources.prepare_dataset(builder, archives, tmp_path / "scratch")

    splits = [split for split, *_ in sources.read_splits(prepared, shape)]
    assert splits == ["train", "test"]
    assert not list((tmp_path / "tfds").iterdir())
