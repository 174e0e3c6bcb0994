"""Folders of images: which files, in which order, and what is refused."""

import os
import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, start, write_params
from PIL import Image
from test_image_files import bad_files

from core_mlp.data.arrays import read_files
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.sources import folders
from core_mlp.sources.image_files import read_image
from core_mlp.sources.listing import list_folder
from stages import fetch


def save(path, seed, shape=(4, 5), **options):
    """Writes an image of noise, a different one for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).save(path, **options)
    return noise.reshape(*shape[:2], -1)


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The folder of a dataset: two classes of 30 images each."""
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
    # Shuffled: neither class is first.
    assert 5 < labels[:30].sum() < 25


def test_the_order_does_not_depend_on_names(source):
    before = fetch_arrays()
    for index, path in enumerate(sorted(source.rglob("*.*"))):
        path.rename(path.with_name(f"{(index * 7) % 60}-renamed.jpeg.png"))

    after = fetch_arrays()

    assert contents(after[1]) == contents(before[1])
    assert after[2].tolist() == before[2].tolist()


def test_files_that_are_added_or_removed_do_not_reorder_the_others(source):
    before = contents(fetch_arrays()[1])
    added = save(source / "cats/new.png", 1000).tobytes()
    removed = (source / "cats/3.png", Image.open(source / "cats/3.png").tobytes())
    removed[0].unlink()

    after = contents(fetch_arrays()[1])

    assert sorted(after) == sorted({*before, added} - {removed[1]})
    assert [c for c in after if c != added] == [c for c in before if c != removed[1]]


def test_every_image_has_the_path_of_its_file(source):
    last = os.fsencode(source / "cats/29.png")
    os.rename(last, last + b"\xff.png")

    _, images, labels = fetch_arrays()

    files = read_files(Path("data/raw/train"))
    for file, image, label in zip(files, images, labels, strict=True):
        with open(os.path.join(os.fsencode(source), file), "rb") as opened:
            assert Image.open(opened).tobytes() == image.tobytes()
        assert file.startswith(b"cats/") == label


def test_a_test_split_is_read_with_the_classes_of_train(source):
    (source / "train").mkdir()
    for name in ("cats", "Dogs and übercats"):
        (source / name).rename(source / "train" / name)
    pixels = save(source / "test/cats/x.bmp", 500)

    info, images, labels = fetch_arrays("test")

    assert info.class_names == ("Dogs and übercats", "cats")
    assert contents(images) == [pixels.tobytes()]
    assert labels.tolist() == [1]
    assert read_files(Path("data/raw/test")).tolist() == [b"test/cats/x.bmp"]
    assert fetch_arrays("train")[0].num_examples == 60


def test_a_class_may_be_called_train(source):
    (source / "cats").rename(source / "train")

    assert fetch_arrays()[0].class_names == ("Dogs and übercats", "train")


def test_what_is_hidden_or_no_image_is_skipped(source, capsys):
    (source / "cats/.DS_Store").write_bytes(b"?")
    (source / "cats/.hidden.png").write_bytes(b"?")
    (source / "cats/Thumbs.db").write_bytes(b"?")
    (source / "Dogs and übercats/labels.csv").write_text("a,b")
    (source / "Dogs and übercats/photo.heic").write_bytes(b"?")
    (source / "cats/folder.png").mkdir()
    (source / "a class without images").mkdir()
    (source / "README").write_text("Pets")
    save(source / ".thumbnails/x.png", 1)
    (source.parent / ".gitignore").write_text("/my-Pictures")
    (source.parent / "my-Pictures.dvc").write_text("outs: []")

    assert fetch_arrays()[0].num_examples == 60
    lines = capsys.readouterr().out.splitlines()
    assert f"warning: {source}: no files in a class without images" in lines
    assert (
        "warning: skipped files that are not PNG, JPEG, GIF, BMP, WebP or TIFF: "
        f"1 in {source}, 2 in Dogs and übercats, 1 in cats; such as '{source}/README'"
    ) in lines


def test_a_folder_of_archives_is_not_one_of_images(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte.gz").write_bytes(b"?")

    assert folders.find_images(list_folder(tmp_path, "mnist")) == {}
    assert folders.find_images(list_folder(tmp_path, "none")) == {}


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


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda source: save(source / "test/birds/x.png", 1), "no images of class bir"),
        (
            lambda source: shutil.rmtree(source / "train/cats"),
            "each of two or more classes, found Dogs",
        ),
        (lambda source: shutil.rmtree(source / "train"), "test, but no folder train"),
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

    assert contents(fetch_arrays()[1]) == before


TEST_PROCESS = os.getpid()


def exit_in_a_worker(path, channels=None):
    if os.getpid() != TEST_PROCESS:
        os._exit(9)
    return read_image(path, channels)


def run_out_of_memory(path, channels):
    raise MemoryError


@pytest.mark.parametrize("work", ["sha256", "read_image"])
def test_a_worker_that_is_killed_is_one_line(source, monkeypatch, work):
    monkeypatch.setattr(folders, work, exit_in_a_worker)

    assert refusal().startswith("a process that reads images was killed, perhaps")


def test_a_disk_that_is_full_when_a_worker_writes_names_the_output(source):
    write_params(Path(), dataset="my-Pictures")
    Path("data/raw").mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Less than the images, more than the labels.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as error:
            fetch.main()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert error.value.filename == "data/raw"
    assert sorted(os.listdir("data")) == ["raw", "source"]
    assert os.listdir("data/raw") == []


def test_an_image_that_takes_too_much_memory_is_listed(source, monkeypatch, capsys):
    monkeypatch.setattr(folders, "resize_image", run_out_of_memory)

    assert "60 of its files cannot be read" in refusal(image_size=[8, 8])
    lines = capsys.readouterr().out.splitlines()
    assert sum("there is not enough memory" in line for line in lines) == 20


def test_workers_end_with_a_stage_that_is_terminated(source):
    write_params(Path(), dataset="my-Pictures")
    code = """
import time
from core_mlp.sources import folders
from stages import fetch

def work(path):
    print("working", flush=True)
    time.sleep(99)

folders.sha256 = work
fetch.main()
"""
    stage = start(sys.executable, "-c", code, cwd=Path(), PYTHONPATH=str(ROOT))
    while "working" not in stage.stdout.readline():
        assert stage.poll() is None

    stage.terminate()

    # Reads to the end of the workers, which write to the same pipe.
    assert "Traceback" not in stage.communicate(timeout=20)[0]
    assert stage.returncode == -signal.SIGTERM
