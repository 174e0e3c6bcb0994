"""Folders of images: which files, in which order, and what is refused."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import write_params
from PIL import Image
from test_image_files import bad_files

from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.pipeline.stage import InputError
from core_mlp.sources import folders
from stages import fetch


def save(path, seed, shape=(4, 5), **options):
    """Writes an image of noise, another one for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path, **options)
    return noise.reshape(*shape[:2], -1)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The folder of a dataset: 30 images of each of two classes."""
    monkeypatch.chdir(tmp_path)
    folder = Path("data/source/my-Pictures")
    for index in range(30):
        save(folder / "cats" / f"{index}.png", index)
        save(folder / "Dogs and übercats" / f"{index} \n.PNG", 100 + index)
    return folder


def fetch_arrays(split="train", **changes):
    """Runs fetch; returns metadata, images and labels of a split."""
    write_params(Path(), **{"dataset": "my-Pictures"} | changes)
    fetch.main()
    folder = Path("data/raw", split)
    arrays = (np.load(folder / f"{name}.npy") for name in ("images", "labels"))
    return SplitInfo.read_split(folder), *arrays


def contents(images):
    return [image.tobytes() for image in images]


def test_every_image_is_there_once_with_its_class(source):
    info, images, labels = fetch_arrays()

    assert info.dataset == "my-Pictures"
    assert info.image_shape == (4, 5, 1)
    assert info.class_names == ("Dogs and übercats", "cats")
    assert info.num_examples == len(images) == 60
    expected = {
        np.random.default_rng(seed).integers(0, 256, (4, 5), np.uint8).tobytes(): label
        for first, label in ((0, 1), (100, 0))
        for seed in range(first, first + 30)
    }
    assert dict(zip(contents(images), labels, strict=True)) == expected
    assert not Path("data/raw/test").exists()
    # Shuffled: neither class comes first.
    assert 5 < labels[:30].sum() < 25


def test_the_order_does_not_depend_on_names(source):
    before = fetch_arrays()
    for index, path in enumerate(sorted(source.rglob("*.*"))):
        path.rename(path.with_name(f"{(index * 7) % 60}-renamed.jpeg.png"))

    after = fetch_arrays()

    assert after[0] == before[0]
    assert contents(after[1]) == contents(before[1])


def test_files_that_are_added_or_removed_do_not_reorder_the_others(source):
    before = contents(fetch_arrays()[1])
    added = save(source / "cats/new.png", 1000).tobytes()
    removed = (source / "cats/3.png", Image.open(source / "cats/3.png").tobytes())
    removed[0].unlink()

    after = contents(fetch_arrays()[1])

    assert sorted(after) == sorted({*before, added} - {removed[1]})
    assert [c for c in after if c != added] == [c for c in before if c != removed[1]]


def test_a_test_split_is_read_with_the_classes_of_train(source):
    (source / "train").mkdir()
    for name in ("cats", "Dogs and übercats"):
        (source / name).rename(source / "train" / name)
    pixels = save(source / "test/cats/x.bmp", 500)

    info, images, labels = fetch_arrays("test")

    assert info.class_names == ("Dogs and übercats", "cats")
    assert contents(images) == [pixels.tobytes()]
    assert labels.tolist() == [1]
    assert fetch_arrays("train")[0].num_examples == 60


def test_a_class_may_be_called_train(source):
    (source / "cats").rename(source / "train")

    assert fetch_arrays()[0].class_names == ("Dogs and übercats", "train")


def test_what_is_hidden_or_no_image_is_skipped(source, capsys):
    (source / "cats/.DS_Store").write_bytes(b"?")
    (source / "cats/.hidden.png").write_bytes(b"?")
    (source / "cats/Thumbs.db").write_bytes(b"?")
    (source / "cats/folder.png").mkdir()
    (source / "a class without images").mkdir()
    save(source / "cat beside the folders.png", 1)
    save(source / ".thumbnails/x.png", 1)
    (source.parent / ".gitignore").write_text("/my-Pictures")
    (source.parent / "my-Pictures.dvc").write_text("outs: []")

    assert fetch_arrays()[0].num_examples == 60
    problem = "4 skipped, not images in a class's folder, such as"
    warning = f"warning: {problem} '{source}/a class without images'"
    assert warning in capsys.readouterr().out.splitlines()


def test_a_folder_of_archives_is_not_one_of_images(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte.gz").write_bytes(b"?")

    assert folders.find_images(tmp_path / "mnist") == {}
    assert folders.find_images(tmp_path / "none") == {}


def refusal(**changes):
    """Returns the line with which fetch ends; previous outputs are still there."""
    Path("data/raw").mkdir(exist_ok=True)
    Path("data/raw/previous").touch()
    with pytest.raises(InputError) as error:
        fetch_arrays(**changes)
    assert os.listdir("data/raw") == ["previous"]
    assert "\n" not in str(error.value)
    return str(error.value)


def test_images_of_several_sizes_need_image_size(source):
    save(source / "cats/large.png", 7, (8, 10))

    message = refusal()

    assert message.startswith("params.yaml: image_size = null: 'data/source/my-Pict")
    assert "[4, 5, 1]" in message
    assert "'data/source/my-Pictures/cats/large.png' has [8, 10, 1]" in message
    assert message.endswith(": set image_size")
    info, images, _ = fetch_arrays(image_size=[6, 6])
    assert info.image_shape == (6, 6, 1)
    assert images.shape == (61, 6, 6, 1)


def test_gray_and_color_need_channels(source):
    color = save(source / "cats/color.png", 7, (4, 5, 3))

    message = refusal(image_size=[4, 5])

    assert message.startswith("params.yaml: channels = null: ")
    assert message.endswith(": set channels")
    _, images, _ = fetch_arrays(channels=3)
    assert images.shape == (61, 4, 5, 3)
    assert color.tobytes() in contents(images)
    assert fetch_arrays(channels=1)[1].shape == (61, 4, 5, 1)


def test_all_bad_files_are_listed_at_once(source, capsys):
    (source / "train").mkdir()
    for name in ("cats", "Dogs and übercats"):
        (source / name).rename(source / "train" / name)
    for name, content in bad_files().items():
        (source / "train/cats" / name).write_bytes(content)
    (source / "test/cats").mkdir(parents=True)
    for index in range(19):
        (source / f"test/cats/{index}.gif").write_bytes(b"")

    message = refusal()

    assert message == (
        "dataset = my-Pictures: 25 of its files cannot be read; see the lines above"
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if "not a" in line]
    assert len(lines) == 20
    for name in bad_files():
        start = f"{f'data/source/my-Pictures/train/cats/{name}'!r}: not a readable "
        assert sum(line.startswith(start) for line in lines) == 1


def test_a_dataset_of_bad_files_is_refused(source):
    for path in source.rglob("*.*"):
        path.write_bytes(b"")

    assert "60 of its files cannot be read" in refusal()


def test_a_folder_beside_train_and_test_is_skipped_with_a_warning(source, capsys):
    (source / "cats").rename(source / "cat")
    for name in ("cat", "Dogs and übercats"):
        shutil.copytree(source / name, source / "train" / name)

    assert fetch_arrays()[0].class_names == ("Dogs and übercats", "cat")
    problem = "2 skipped, not images in a class's folder, such as"
    warning = f"warning: {problem} '{source}/Dogs and übercats'"
    assert warning in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda source: save(source / "test/birds/x.png", 1), "no images of class bir"),
        (
            lambda source: shutil.rmtree(source / "train/cats"),
            "each of two or more classes, found Dogs",
        ),
        (lambda source: shutil.rmtree(source / "train"), "no images of class cats"),
    ],
)
def test_a_wrong_layout_is_refused(source, change, problem):
    (source / "train").mkdir()
    for name in ("cats", "Dogs and übercats"):
        (source / name).rename(source / "train" / name)
    save(source / "test/cats/x.png", 2)
    if problem.startswith("each of"):
        shutil.rmtree(source / "test")
    change(source)

    assert problem in refusal()


def test_the_bytes_do_not_depend_on_how_the_work_is_divided(source, monkeypatch):
    before = contents(fetch_arrays()[1])
    monkeypatch.setattr(folders, "TASK_FILES", 3)
    monkeypatch.setattr(folders, "WINDOW_TASKS", 2)

    assert contents(fetch_arrays()[1]) == before
