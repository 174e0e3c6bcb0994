"""Layouts of a folder of images: what is understood, and what is refused."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_folders import fetch_arrays, refusal, save

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


@pytest.fixture
def make(tmp_path, monkeypatch):
    """A function that makes a dataset of the given files, each a different image."""
    monkeypatch.chdir(tmp_path)
    root = Path("data/source/my-Pictures")

    def make_files(*paths):
        for seed, path in enumerate(paths):
            save(root / path, seed)
        return root

    return make_files


def pictures(*class_folders):
    return [f"{folder}/{n}.png" for folder in class_folders for n in range(2)]


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("training", "testing"), ("TRAIN", "test")]
)
def test_folders_of_splits_have_several_names(make, train, test):
    make(*pictures(f"{train}/cat", f"{train}/dog", f"{test}/dog"))

    assert fetch_arrays("train")[0].class_names == ("cat", "dog")
    info, _, labels = fetch_arrays("test")
    assert (info.num_examples, labels.tolist()) == (2, [1, 1])


@pytest.mark.parametrize("names", [["bus", "train"], ["Test", "bus", "train", "val"]])
def test_classes_may_have_the_names_of_splits_among_others(make, names):
    make(*pictures(*names))

    assert fetch_arrays()[0].class_names == tuple(names)


def test_a_class_in_two_unicode_forms_is_one(make):
    make(*pictures(f"train/{NFC}", "train/bar", f"test/{NFD}"))
    assert fetch_arrays("test")[0].class_names == ("bar", NFC)

    make(*pictures(f"train/{NFD}"))
    assert fetch_arrays("train")[0].num_examples == 6


@pytest.mark.parametrize(
    ("paths", "problem"),
    [
        (
            pictures("bus", "car", "ship", "train/steam", "train/electric"),
            "{root}: bus, car, ship beside train: move each class into train or test",
        ),
        (
            pictures("train", "test"),
            "{root}: expected a folder per class in {root}/test, found the image "
            "'{root}/test/0.png'",
        ),
        (pictures("train"), "{root}: expected a folder per class in {root}/train"),
        (pictures("Train/a", "Train/b", "train/a"), "{root}: both Train and train"),
        (pictures("train/a", "train/b", "training/a"), "both train and training"),
        (
            pictures("train/a", "train/b", "val/a"),
            "{root}/val: validation images are held out of train (see validation_size)",
        ),
        (pictures("train/a", "train/b", "Validation/a"), "{root}/Validation: valid"),
        (pictures("train/a", "train/b", "valid"), "{root}/valid: validation images"),
        (pictures("a", "b", "dev/a"), "{root}/dev: validation images are held out"),
        (pictures("test/a", "test/b"), "{root}: test, but no folder train"),
        (
            pictures("train/a", "train/b", "test"),
            "expected a folder per class in {root}/test, found the image",
        ),
        (["a/1.png", "b/2.png", "3.png"], "a folder per class in {root}, found the"),
        (
            ["train/a/1.png", "train/b/2.png", "3.png"],
            "expected images in {root}/train/CLASS only, found the image '{root}/3.p",
        ),
        (
            ["a/1.png", "b/2.png", "b/more/3.png"],
            "expected the images of a class directly in {root}/b, found the image "
            "'{root}/b/more/3.png'",
        ),
        (
            ["train/a/1.png", "train/b/x/y/2.png"],
            "directly in {root}/train/b, found the image '{root}/train/b/x/y/2.png'",
        ),
        (pictures("pets/a", "pets/b"), "the images of a class directly in {root}/pets"),
    ],
)
def test_a_layout_that_would_leave_images_out_is_refused(make, paths, problem):
    root = make(*paths)

    assert problem.format(root=root) in refusal()


@pytest.mark.parametrize("place", ["", "train/", "deep/"])
def test_a_class_of_files_that_are_no_images_is_refused(make, place):
    split = "train/" if place == "train/" else ""
    root = make(*pictures(f"{split}a", f"{split}b"))
    folder = root / split / ("c" if place != "deep/" else "c/d")
    folder.mkdir(parents=True)
    (folder / "1.heic").write_bytes(b"....ftypheic")

    message = refusal()

    assert message.startswith(f"{root / split / 'c'}: no images (PNG, JPEG, GIF, BMP,")
    assert "in this class, but 1 other files, such as '" in message


@pytest.mark.parametrize("extension", ["webp", "tiff", "TIF", "gif"])
def test_a_dataset_of_any_format_is_read(make, extension):
    paths = [f"{name}/{n}.{extension}" for name in "ab" for n in range(2)]
    make(*paths)

    info, images, _ = fetch_arrays()

    assert info.num_examples == 4
    assert images.shape == (4, 4, 5, *images.shape[3:])


def test_images_are_told_by_their_content(make, capsys):
    root = make(*pictures("a", "b"))
    for path in [*root.rglob("*.png")]:
        path.rename(path.with_suffix(".data"))
    (root / "a/text.PnG").write_text("no image")

    assert refusal().endswith("1 of its files cannot be read; see the lines above")
    assert f"'{root}/a/text.PnG': not a readable image" in capsys.readouterr().out
    (root / "a/text.PnG").unlink()
    assert fetch_arrays()[0].num_examples == 4


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\x1b[31m", "a\u2028b", "a\x85"])
def test_a_class_name_that_steers_a_terminal_is_refused(make, name):
    make(*pictures("other", name))

    message = refusal()

    assert "has a control character or is not UTF-8: rename the class" in message
    assert name not in message


def test_a_class_name_that_is_not_utf_8_is_refused(make):
    root = make(*pictures("a", "b"))
    os.rename(os.fsencode(root / "b"), os.fsencode(root) + b"/\xff")

    assert "the class name '\\udcff' has a control character or is not" in refusal()


def test_other_odd_class_names_are_kept(make):
    names = ("  x", "$y$, 'z'", "-rf", "<script>", '@me "|" \\', "日本", "👩\u200d🔬")
    make(*pictures(*names))

    assert fetch_arrays()[0].class_names == names


def test_a_folder_that_is_no_dataset_is_described(make):
    root = make("1.png", "2.png")
    assert "it has 2 other files, such as 'data/source/my-Pictures/1.png'" in refusal()

    for path in root.iterdir():
        path.unlink()
    assert "it is empty" in refusal()
    root.rename("data/source/Pets")
    assert "data/source has Pets; with --temp" in refusal()
    Path("data/source/my-Pictures.dvc").write_text("outs: []")
    assert "run `dvc pull data/source/my-Pictures.dvc`" in refusal()


def test_the_parent_of_data_source_is_no_dataset(make):
    make(*pictures("a", "b"))

    assert "expected a folder in data/source" in refusal(dataset="my-Pictures/..")


def test_400_classes_are_read_like_two(make, capsys):
    image = Image.fromarray(np.zeros([2, 2], np.uint8))
    root = make()
    for number in range(400):
        (root / f"{number:03}").mkdir(parents=True)
        image.save(root / f"{number:03}/0.png")
        (root / f"{number:03}/Thumbs.db").touch()

    info, _, labels = fetch_arrays()

    assert len(info.class_names) == 400
    assert sorted(labels.tolist()) == list(range(400))
    # The warning is a line, not a page.
    assert "1 in 004 and 395 more; such as" in capsys.readouterr().out
