"""Metadata passed between stages."""

import hashlib
import json

import pytest

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import NetworkInfo, SplitInfo

INFO = SplitInfo(
    dataset="pets",
    version="1.0.0",
    image_shape=(2, 2, 3),
    class_names=("cat", "dog"),
    num_examples=3,
)


def test_metadata_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "info.json"
    INFO.write(path)

    assert SplitInfo.read(path) == INFO
    assert json.loads(path.read_text())["image_shape"] == [2, 2, 3]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"num_examples": 3', '"num_examples": 0', "num_examples: Input should be gr"),
        ('"version": "1.0.0",', "", "version: Field required"),
        ('"version"', '"release"', "version: Field required"),
        ('"cat",', "", "class_names: Tuple should have at least 2 items"),
        ("    2,\n    2,", "    70000,\n    2,", "image_shape.0: Input should be less"),
        ("{", "", "Invalid JSON"),
    ],
)
def test_corrupt_metadata_is_refused(tmp_path, old, new, problem):
    path = tmp_path / "info.json"
    INFO.write(path)
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(InputError) as error:
        SplitInfo.read(path)

    assert str(error.value).startswith(f"{path}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_the_files_of_a_split_are_verified(tmp_path):
    (tmp_path / "images").write_bytes(b"123")
    (tmp_path / "labels").write_bytes(b"abc")
    info = INFO.write_split(tmp_path)

    assert sorted(info.sha256) == ["images", "labels"]
    assert SplitInfo.read_split(tmp_path) == info
    (tmp_path / "images").write_bytes(b"124")
    with pytest.raises(InputError, match=f"^{tmp_path}/images: corrupt: its SHA-256"):
        SplitInfo.read_split(tmp_path)


def test_a_file_that_was_hashed_as_it_was_written_is_not_read_again(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).write_bytes(b"123")
    known = {"images": "as it was written"}

    digests = INFO.write_split(tmp_path, known).sha256

    assert digests == known | {"labels": hashlib.sha256(b"123").hexdigest()}


def test_a_network_carries_what_is_known_of_its_images():
    info = INFO.model_copy(update={"drawing_side": 20, "border": (0.0, 9.0)})

    network = NetworkInfo.of(info, {"hidden_sizes": [5], "epochs": 3})

    assert (network.drawing_side, network.border) == (20, (0.0, 9.0))
    assert network.hidden_sizes == (5,)
