"""fetch reads what DVC hashes, and nothing else."""

import os
import socket
from pathlib import Path

import pytest
from test_folders import fetch_arrays, refusal, save

from core_mlp.sources import listing


@pytest.fixture
def pets(tmp_path, monkeypatch):
    """A dataset of two classes, in a DVC repository."""
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    for seed, name in enumerate(["cat", "dog"]):
        save(tmp_path / f"elsewhere/{name}/0.png", seed)
        save(Path(f"data/source/my-Pictures/{name}/0.png"), seed)
    return Path("data/source/my-Pictures")


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(Path(target).absolute())


@pytest.mark.parametrize("place", ["", "cat", "train/cat", "train", "cat/more"])
def test_a_link_to_a_folder_is_refused(pets, place):
    if place in ("", "cat"):
        (pets / place).rename("moved")
    link(pets / place, "elsewhere")

    message = refusal()

    path, target = pets / place, Path("elsewhere").absolute()
    assert message.startswith(f"{path}: a link to a folder, which DVC does not follow")
    assert message.endswith(f": rm '{path}' && cp -rs '{target}' '{path}'")


def test_a_folder_above_the_dataset_may_not_be_a_link(pets):
    link(Path("data/source/zoo"), "elsewhere")

    assert refusal(dataset="zoo/cat").startswith("data/source/zoo: a link to a folder")


def test_data_source_itself_may_be_a_link(pets):
    Path("data/source").rename("moved")
    link(Path("data/source"), "moved")

    assert fetch_arrays()[0].num_examples == 2


def test_links_to_files_are_read(pets):
    for name in ("cat", "dog"):
        (pets / name / "0.png").unlink()
        link(pets / name / "0.png", f"elsewhere/{name}/0.png")

    assert fetch_arrays()[0].num_examples == 2


def test_links_to_archives_are_refused_like_links_to_images(pets):
    Path("data/source/mnist").mkdir()
    link(Path("data/source/mnist/more"), "elsewhere")

    assert refusal(dataset="mnist").startswith(
        "data/source/mnist/more: a link to a fol"
    )


@pytest.mark.parametrize("target", ["nowhere", "data/source/my-Pictures/dog/x.png"])
def test_a_link_to_nothing_is_refused(pets, target):
    link(pets / "dog/x.png", target)

    assert f": a broken link to {Path(target).absolute()}: delete it" in refusal()


def test_a_fifo_or_a_socket_is_refused_without_opening_it(pets):
    os.mkfifo(pets / "cat/fifo")
    message = f"{pets}/cat/fifo: a FIFO, socket or device: expected files and folders o"
    assert refusal().startswith(message)

    (pets / "cat/fifo").unlink()
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(pets / "dog/socket"))
        assert refusal().startswith(f"{pets}/dog/socket: a FIFO, socket or device")


def test_a_folder_that_cannot_be_read_is_refused(pets):
    (pets / "cat").chmod(0)
    if os.access(pets / "cat", os.R_OK):
        pytest.skip("this user may read everything")

    try:
        assert "cat: cannot be read (Permission denied), and DVC would" in refusal()
    finally:
        (pets / "cat").chmod(0o755)


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        ("*.png", "cat/0.png"),
        ("dog", "dog/0.png"),
        ("data/source/my-Pictures/cat/", "cat/0.png"),
        ("/data", "cat/0.png"),
        ("*\n!cat/\n!0.png\n", None),
    ],
)
def test_images_that_dvc_ignores_are_refused(pets, rule, path):
    Path(".dvcignore").write_text(rule + "\n")

    if path is None:
        assert "DVC ignores it (.dvcignore:1:*)" in refusal()
    else:
        assert refusal().startswith(
            f"{pets / path}: DVC ignores it (.dvcignore:1:{rule}"
        )


@pytest.mark.parametrize("place", ["data", "data/source"])
def test_a_dvcignore_below_the_top_counts_too(pets, place):
    Path(place, ".dvcignore").write_text("0.png\n")

    assert f"DVC ignores it ({place}/.dvcignore:1:0.png)" in refusal()


def test_ignored_files_that_are_no_images_are_skipped_silently(pets, capsys):
    Path(".dvcignore").write_text("*.swp\n.DS_Store\nnotes/\n")
    for name in ("cat/x.swp", "cat/.DS_Store", "notes/a.txt"):
        (pets / name).parent.mkdir(exist_ok=True)
        (pets / name).write_text("?")

    assert fetch_arrays()[0].num_examples == 2
    assert "x.swp" not in capsys.readouterr().out


def test_an_archive_that_dvc_ignores_is_refused(pets):
    Path(".dvcignore").write_text("*.gz\n")
    Path("data/source/mnist").mkdir()
    Path("data/source/mnist/x.gz").touch()

    problem = (
        "data/source/mnist/x.gz: DVC ignores it (.dvcignore:1:*.gz), and would not"
    )
    assert refusal(dataset="mnist").startswith(problem)


@pytest.mark.parametrize("place", [".", "cat", "cat/more"])
def test_images_in_another_dvc_repository_are_refused(pets, place):
    save(pets / place / "1.png", 5)
    (pets / place / ".dvc").mkdir()

    assert "DVC ignores it (it is in another DVC repository" in refusal()


def test_images_in_another_git_repository_are_read(pets):
    (pets / "cat/.git").mkdir()
    save(pets / "cat/.git/1.png", 5)

    assert fetch_arrays()[0].num_examples == 2


def test_other_datasets_are_not_walked_through(pets, monkeypatch):
    save(Path("data/source/other/x/1.png"), 5)
    scanned = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda f: scanned.append(str(f)) or scandir(f))

    found = listing.list_folder(Path("data/source"), "my-Pictures")

    assert found.files == ["cat/0.png", "dog/0.png"]
    assert found.folders == ["cat", "dog"]
    assert not any("source/other" in folder for folder in scanned)
