"""Datasets from TFDS, from archives, and what is refused."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits

from core_mlp import datasets
from core_mlp.descriptions import DatasetInfo
from core_mlp.errors import InputError

ROOT = Path(__file__).parent.parent
ARCHIVES = ROOT / "data/archives/mnist"


def refuse_download(urls):
    raise AssertionError(f"would have downloaded {urls}")


@pytest.fixture
def archives_dir(tmp_path):
    shutil.copytree(ARCHIVES, tmp_path / "archives/mnist")
    return tmp_path / "archives"


def test_sklearn_digits_are_those_of_scikit_learn(digits_dir):
    raw = digits_dir / "data/raw"
    images, labels = (
        np.concatenate([np.load(raw / f"{split}_{kind}.npy") for split in splits])
        for kind, splits in (
            ("images", ["train", "test"]),
            ("labels", ["train", "test"]),
        )
    )

    info = DatasetInfo.read(raw / "info.json")
    assert sorted(info.sha256) == [
        "test_images.npy",
        "test_labels.npy",
        "train_images.npy",
        "train_labels.npy",
    ]
    assert info.model_copy(update={"sha256": {}}) == DatasetInfo(
        dataset="sklearn_digits",
        version="1.0.0",
        image_shape=(8, 8, 1),
        class_names=tuple("0123456789"),
        num_examples={"train": 1437, "test": 360},
    )
    assert images.dtype == np.uint8
    assert labels.dtype == np.int64
    # TFDS shuffles within a split; back to grey levels 0 to 16, each is there once.
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
    builder, archives = datasets.find_dataset("mnist", ARCHIVES.parent)

    assert datasets._check_archives(builder, archives) == []
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
def test_a_damaged_archive_is_refused_and_nothing_is_made(archives_dir, damage):
    path = archives_dir / "mnist/t10k-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    builder, archives = datasets.find_dataset("mnist", archives_dir)

    with pytest.raises(InputError, match=r"damaged or not the original") as error:
        datasets.prepare_dataset(builder, archives, refuse_download)

    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert not builder.data_path.parent.exists()


def test_without_archives_and_network_the_message_says_what_to_put_where(
    tmp_path, monkeypatch
):
    def fail(*args, **kwargs):
        raise ConnectionError("no route\nto host")

    builder, archives = datasets.find_dataset("fashion_mnist", tmp_path)
    monkeypatch.setattr(builder, "download_and_prepare", fail)
    announced = []

    with pytest.raises(InputError) as error:
        datasets.prepare_dataset(builder, archives, announced.extend)

    message = str(error.value)
    names = [Path(url).name for url in announced]
    assert sorted(names) == sorted(path.name for path in ARCHIVES.iterdir())
    assert "ConnectionError: no route;" in message
    assert f"put into {tmp_path / 'fashion_mnist'}: " in message
    assert all(name in message for name in names)
    assert "\n" not in message


def test_an_unknown_dataset_is_refused():
    with pytest.raises(InputError, match="dataset = no_such_set: ") as error:
        datasets.find_dataset("no_such_set", ARCHIVES.parent)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mnist:9.9.9", "emnist/no_such_config"])
def test_an_unknown_version_or_config_is_one_line(name):
    with pytest.raises(InputError, match=f"^dataset = {name}: ") as error:
        datasets.find_dataset(name, ARCHIVES.parent)

    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-100], lambda content: b""]
)
def test_a_damaged_prepared_dataset_is_named(tmp_path, damage):
    builder = datasets.SklearnDigits(data_dir=tmp_path)
    datasets.prepare_dataset(builder, tmp_path / "none", refuse_download)
    (shard,) = Path(builder.data_path).glob("*-test.tfrecord*")
    shard.write_bytes(damage(shard.read_bytes()))

    with pytest.raises(InputError, match=f"^{builder.data_path}: damaged; remove it"):
        list(datasets.read_batches(builder, "test"))


@pytest.mark.parametrize("name", ["imdb_reviews", "caltech101", "coco_captions"])
def test_a_dataset_without_fixed_images_and_labels_is_refused(name):
    with pytest.raises(InputError, match="needs the features image, uint8 of one"):
        datasets.find_dataset(name, ARCHIVES.parent)


class TrainOnly(tfds.core.GeneratorBasedBuilder):
    """A dataset without a test split."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=datasets.SklearnDigits(data_dir="/none").info.features,
        )

    def _split_generators(self, dl_manager):
        image = np.zeros((8, 8, 1), np.uint8)
        return {"train": iter([(0, {"image": image, "label": 0})])}

    def _generate_examples(self):
        raise NotImplementedError


def test_a_dataset_without_a_test_split_is_refused(tmp_path):
    builder, _ = datasets.find_dataset("train_only", tmp_path)

    with pytest.raises(InputError, match="needs the splits train and test; its splits"):
        datasets.prepare_dataset(builder, tmp_path, refuse_download)


def test_an_empty_split_is_refused(tmp_path, monkeypatch):
    builder = datasets.SklearnDigits(data_dir=tmp_path)
    datasets.prepare_dataset(builder, tmp_path / "none", refuse_download)
    monkeypatch.setattr(tfds.core.SplitInfo, "num_examples", 0)

    with pytest.raises(
        InputError, match=r"num_examples.train: Input should be greater"
    ):
        datasets.describe_dataset(builder)


def test_images_without_a_label_are_refused(tmp_path, monkeypatch):
    builder = datasets.SklearnDigits(data_dir=tmp_path)
    generate = datasets.SklearnDigits._generate_examples
    monkeypatch.setattr(
        datasets.SklearnDigits,
        "_generate_examples",
        lambda self, examples: generate(self, [(i, -1) for i, _ in examples]),
    )
    datasets.prepare_dataset(builder, tmp_path / "none", refuse_download)

    with pytest.raises(InputError, match="there are images without a label in test"):
        list(datasets.read_batches(builder, "test"))


def test_a_dataset_of_ours_is_prepared_anew_when_its_code_has_changed(
    tmp_path, monkeypatch
):
    def labels():
        builder = datasets.SklearnDigits(data_dir=tmp_path)
        datasets.prepare_dataset(builder, tmp_path / "none", refuse_download)
        return np.concatenate([b for _, b in datasets.read_batches(builder, "test")])

    before = labels()
    generate = datasets.SklearnDigits._generate_examples
    monkeypatch.setattr(
        datasets.SklearnDigits,
        "_generate_examples",
        lambda self, examples: generate(self, [(i, 9 - n) for i, n in examples]),
    )

    np.testing.assert_array_equal(labels(), 9 - before)
