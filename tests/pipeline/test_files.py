"""Atomic outputs, locks, and JSON and CSV with reproducible bytes."""

import errno
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import pytest

from core_mlp.pipeline import files
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import atomic_output


class Share(NamedTuple):
    """A row."""

    label: str
    share: float


class Named(NamedTuple):
    """A row with a column that may be left out."""

    label: str
    file: str | None = None


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
        with atomic_output(path) as partial:
            write(partial, text)
            assert text == "old" or read() == "old"
        assert read() == text
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, InputError])
def test_an_error_leaves_the_last_one_as_it_was(output, error):
    path, write, read = output
    write(path, "old")

    def fail():
        with atomic_output(path) as partial:
            write(partial, "half")
            raise error

    with pytest.raises(error):
        fail()
    assert read() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["output.partial", "output.abc.partial"])
def test_what_a_killed_run_has_left_is_taken_away(output, name):
    path, write, read = output
    left = path.with_name(name)
    left.mkdir()
    write(left / "output", "half")

    with atomic_output(path) as partial:
        assert not partial.exists()
        write(partial, "new")

    assert read() == "new"
    assert not left.exists()


def test_two_processes_may_write_the_same_output_at_once(output):
    path, write, read = output

    with atomic_output(path) as first:
        write(first, "first")
        with atomic_output(path) as second:
            write(second, "second")
        assert read() == "second"

    assert read() == "first"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (OSError(errno.ENOSPC, "No space left"), "output"),
        (OSError(errno.EACCES, "Denied", "elsewhere"), "elsewhere"),
    ],
)
def test_an_error_of_the_file_system_names_the_output(tmp_path, error, name):
    def fail():
        with atomic_output(tmp_path / "output"):
            raise error

    with pytest.raises(OSError, match=error.strerror) as raised:
        fail()
    assert raised.value.filename.endswith(name)


def test_a_librarys_error_of_writing_is_one_line(tmp_path):
    def fail():
        with atomic_output(tmp_path / "output", ZeroDivisionError):
            raise ZeroDivisionError("no room\nat all")

    with pytest.raises(InputError) as raised:
        fail()
    assert str(raised.value) == f"{tmp_path}/output: cannot be written: no room"


def test_json_is_rounded_and_ends_with_a_line_end(tmp_path):
    path = tmp_path / "metrics/test.json"
    files.write_json(path, {"accuracy": np.float64(2 / 3), "loss": 1.0, "epochs": 10})

    assert path.read_text() == (
        '{\n  "accuracy": 0.666667,\n  "loss": 1.0,\n  "epochs": 10\n}\n'
    )


def test_csv_has_a_header_rounded_floats_and_unix_line_ends(tmp_path):
    path = tmp_path / "plots/test.csv"
    rows = [Share("a,b", np.float32(2 / 3)), Share(np.int64(3), 1e-9)]

    files.write_csv(path, rows, Share)

    assert path.read_bytes() == b'label,share\n"a,b",0.666667\n3,0.0\n'


def test_a_column_that_is_always_empty_is_left_out_of_a_csv(tmp_path):
    path = tmp_path / "test.csv"

    files.write_csv(path, [Named("a"), Named("b")], Named)
    assert path.read_bytes() == b"label\na\nb\n"
    files.write_csv(path, [Named("a", "a.png"), Named("b", "b.png")], Named)
    assert path.read_bytes() == b"label,file\na,a.png\nb,b.png\n"
    files.write_csv(path, [], Named)
    assert path.read_bytes() == b"label\n"


def test_a_lock_lets_one_process_at_a_time_work_and_others_say_that_they_wait(
    tmp_path, monkeypatch
):
    is_waiting = threading.Event()
    messages = []

    def note(message, **_):
        messages.append(message)
        is_waiting.set()

    monkeypatch.setattr(files, "print", note, raising=False)
    finished = []

    def work(name):
        with files.process_lock(tmp_path / "lock", "at work"):
            finished.append(name)

    with ThreadPoolExecutor() as executor:
        with files.process_lock(tmp_path / "lock", "at work"):
            second = executor.submit(work, "second")
            assert is_waiting.wait(timeout=60)
            finished.append("first")
        second.result()
    assert finished == ["first", "second"]
    assert messages == ["Waiting for another process that is at work"]
