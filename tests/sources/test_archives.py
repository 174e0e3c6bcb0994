"""A dataset's arrays are those of its own archives, whatever TFDS has cached."""

import gzip
import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from helpers import write_params

from core_mlp.pipeline.metadata import SplitInfo
from stages import fetch

ARCHIVE = "images.npy.gz"
NUM_EXAMPLES = {"train": 12, "test": 6}


def make_archive(value: int) -> bytes:
    """Makes the original file of a dataset whose images all have one value."""
    buffer = io.BytesIO()
    np.save(buffer, np.full([18, 2, 2, 1], value, np.uint8))
    return gzip.compress(buffer.getvalue(), mtime=0)


class _FromArchive(tfds.core.GeneratorBasedBuilder):
    """A dataset made from one archive, whose name other datasets use too."""

    VERSION = tfds.core.Version("1.0.0")
    VALUE = 0
    # Without it, TFDS does not let a builder read its folder of archives.
    MANUAL_DOWNLOAD_INSTRUCTIONS = "None."

    @tfds.core.utils.classproperty
    @classmethod
    def url_infos(cls):
        content = make_archive(cls.VALUE)
        return {
            f"https://{cls.__name__}.org/{ARCHIVE}": tfds.download.checksums.UrlInfo(
                size=tfds.core.units.Size(len(content)),
                checksum=hashlib.sha256(content).hexdigest(),
                filename=ARCHIVE,
            )
        }

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(2, 2, 1)),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        images = np.load(dl_manager.download_and_extract(next(iter(self.url_infos))))
        return {
            "train": self._generate_examples(images[:12]),
            "test": self._generate_examples(images[12:]),
        }

    def _generate_examples(self, images):
        for index, image in enumerate(images):
            yield index, {"image": image, "label": index % 2}


class Circles(_FromArchive):
    """Images of the value 1."""

    VALUE = 1


class Crosses(_FromArchive):
    """Images of the value 2."""

    VALUE = 2


class Unchecked(_FromArchive):
    """A dataset for whose archive TFDS knows no checksum."""

    url_infos = {}  # noqa: RUF012

    def _split_generators(self, dl_manager):
        images = np.load(dl_manager.extract(dl_manager.manual_dir / ARCHIVE))
        return {
            "train": self._generate_examples(images[:12]),
            "test": self._generate_examples(images[12:]),
        }


BUILDERS = {"circles": Circles, "crosses": Crosses}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder to run fetch in, with the archives, and a TFDS folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path / "tfds"))
    for name, builder in BUILDERS.items():
        put_archive(name, builder.VALUE)
    return tmp_path


def put_archive(name: str, value: int) -> None:
    path = Path("data/source", name, ARCHIVE)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_archive(value))


def fetch_value(name: str) -> int:
    """Fetches a dataset; returns the value that all of its pixels have."""
    write_params(Path(), dataset=name)
    fetch.main()
    arrays = [np.load(f"data/raw/{split}/images.npy") for split in NUM_EXAMPLES]
    assert [len(array) for array in arrays] == list(NUM_EXAMPLES.values())
    assert SplitInfo.read(Path("data/raw/test/info.json")).dataset == name
    (value,) = np.unique(np.concatenate(arrays))
    return value


@pytest.mark.parametrize("names", [["circles", "crosses"], ["crosses", "circles"]])
def test_archives_of_one_name_are_not_mixed_up(folder, names):
    assert [fetch_value(name) for name in names] == [
        BUILDERS[name].VALUE for name in names
    ]
    assert not list(folder.rglob("extracted"))


def test_what_the_first_version_has_mixed_up_is_not_used(folder):
    for name, builder in BUILDERS.items():
        config = tfds.download.DownloadConfig(
            manual_dir=folder / "data/source" / name, try_download_gcs=False
        )
        builder(data_dir=folder / "tfds").download_and_prepare(download_config=config)
    # As it was found: the crosses had been extracted as circles.
    poisoned = Crosses(data_dir=folder / "tfds").as_dataset(split="test")
    assert {int(e["image"].max()) for e in tfds.as_numpy(poisoned)} == {1}

    assert fetch_value("crosses") == 2
    assert fetch_value("circles") == 1


def test_a_changed_archive_of_the_same_name_is_read(folder):
    for value in (3, 4, 3):
        put_archive("unchecked", value)

        assert fetch_value("unchecked") == value
