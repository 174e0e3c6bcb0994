"""Outputs are there whole or not at all, whatever happens while they are written."""

import errno

import pytest

from core_mlp.errors import InputError
from core_mlp.outputs import replacing


@pytest.fixture(params=["file", "folder"])
def output(request, tmp_path):
    """A file, or a folder with a file in it; and how to write one."""
    path = tmp_path / "output"

    def write(place, text):
        if request.param == "folder":
            place.mkdir()
            place /= "part"
        place.write_text(text)

    def read():
        return (path / "part" if request.param == "folder" else path).read_text()

    return path, write, read


def test_an_output_takes_the_place_of_the_last_one(output):
    path, write, read = output
    for text in ("old", "new"):
        with replacing(path) as partial:
            write(partial, text)
            assert text == "old" or read() == "old"
        assert read() == text
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_an_error_leaves_the_last_one_as_it_was(output, error):
    path, write, read = output
    write(path, "old")

    def fail():
        with replacing(path) as partial:
            write(partial, "half")
            raise error

    with pytest.raises(error):
        fail()
    assert read() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_what_a_killed_run_has_left_is_taken_away(output):
    path, write, read = output
    left = path.with_name("output.partial")
    left.mkdir()
    write(left / "output", "half")

    with replacing(path) as partial:
        assert not partial.exists()
        write(partial, "new")

    assert read() == "new"
    assert not left.exists()


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (OSError(errno.ENOSPC, "No space left"), "output"),
        (OSError(errno.EACCES, "Denied", "elsewhere"), "elsewhere"),
    ],
)
def test_an_error_of_the_file_system_names_the_output(tmp_path, error, name):
    def fail():
        with replacing(tmp_path / "output"):
            raise error

    with pytest.raises(OSError, match=error.strerror) as raised:
        fail()
    assert raised.value.filename.endswith(name)


def test_a_librarys_error_of_writing_is_one_line(tmp_path):
    def fail():
        with replacing(tmp_path / "output", ZeroDivisionError):
            raise ZeroDivisionError("no room\nat all")

    with pytest.raises(InputError) as raised:
        fail()
    assert str(raised.value) == f"{tmp_path}/output: cannot be written: no room"
