"""Outside influences on results or DVC: variables, packages, odd files."""

import os
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest
from helpers import ROOT

from core_mlp.pipeline.environment import (
    check_source,
    find_warnings,
    settings_of,
    used_lock,
)
from core_mlp.pipeline.errors import InputError


@pytest.mark.parametrize(
    "name",
    [
        "XLA_FLAGS",
        "TF_XLA_FLAGS",
        "ONEDNN_MAX_CPU_ISA",
        "ONEDNN_DEFAULT_FPMATH_MODE",
        "DNNL_MAX_CPU_ISA",
        "NVIDIA_TF32_OVERRIDE",
        "TF_CUDNN_DETERMINISTIC",
        "TF_ENABLE_MAXPOOL_NANPROP",
        "TF_SET_ONEDNN_FPMATH_MODE",
        "CUBLAS_WORKSPACE_CONFIG",
        "NCCL_ALGO",
    ],
)
def test_a_variable_that_changes_results_is_named(name):
    (line,) = find_warnings({name: "new\nline", "HOME": "/root"}, lock=None)

    assert line == (
        rf"warning: {name}=new\nline is set: it can change results, and DVC does not "
        "see it: its run cache may return these results to runs without it"
    )


@pytest.mark.parametrize(
    "name",
    [
        "TF_ENABLE_ONEDNN_OPTS",
        "TF_CPP_MIN_LOG_LEVEL",
        "TF_USE_LEGACY_KERAS",
        "TF_CONFIG",
        "OMP_NUM_THREADS",
        "PYTHONHASHSEED",
        "OPENBLAS_CORETYPE",
        "GLIBC_TUNABLES",
        "NCCL_DEBUG",
        # Terraform's.
        "TF_CLI_CONFIG_FILE",
        "TF_VAR_region",
        "TF_LOG",
    ],
)
def test_a_variable_that_changes_nothing_is_not_named(name):
    assert find_warnings({name: "1"}, lock=None) == []


def test_settings_are_sorted_by_name():
    settings = settings_of({"XLA_FLAGS": "b", "HOME": "c", "ONEDNN_MAX_CPU_ISA": "a"})

    assert list(settings.items()) == [("ONEDNN_MAX_CPU_ISA", "a"), ("XLA_FLAGS", "b")]


def test_installed_packages_are_compared_with_the_lock_file(tmp_path):
    numpy = metadata.version("numpy")
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        f"numpy=={numpy} \\\n    --hash=sha256:00\n    # via core-mlp\n"
        "numpy==1.0 ; python_full_version < '3.0' \\\n    --hash=sha256:00\n"
        "PyYAML==1.2.3\n"
        "not-there==1 ; python_full_version >= '3.0'\n"
        "<<<<<<< HEAD\nbad==;\nscipy==0.1\npandas==0.2\n"
    )

    (line,) = find_warnings({}, lock)

    yaml = metadata.version("pyyaml")
    scipy = metadata.version("scipy")
    assert line == (
        f"warning: installed packages differ from {lock}: PyYAML {yaml}, not 1.2.3, "
        f"not-there is missing, scipy {scipy}, not 0.1 and 1 more: this can change "
        "results, and DVC does not see it: run `rm -r .venv` and `make setup` to "
        "install the locked versions"
    )


def test_a_lock_file_that_is_installed_gives_no_warning(tmp_path):
    lock = tmp_path / "requirements.lock"
    names = ["numpy", "scipy", "tensorflow", "ruamel.yaml", "scikit-learn"]
    lock.write_text("".join(f"{n}=={metadata.version(n)} \\\n" for n in names))

    assert find_warnings({}, lock) == []
    assert find_warnings({}, tmp_path / "missing.lock") == []


def test_packages_are_compared_in_a_tenth_of_a_second():
    start = time.process_time()
    find_warnings({}, ROOT / "requirements.lock")

    assert time.process_time() - start < 0.1


def test_the_lock_file_is_the_one_in_dvc_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert used_lock().name in ("requirements.lock", "requirements-gpu.lock")

    monkeypatch.chdir(tmp_path)
    assert used_lock() is None
    Path("dvc.yaml").write_text(
        "vars:\n- requirements: other.lock  # Why\nstages: {}\n"
    )
    assert used_lock() == Path("other.lock")
    Path("dvc.yaml").write_text("stages: {}\n")
    assert used_lock() is None


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (os.mkfifo, "is a FIFO"),
        (make_socket, "is a socket"),
        (lambda path: path.symlink_to("/dev/null"), "is a device"),
        (lambda path: path.symlink_to("nowhere"), "is a broken link"),
        (lambda path: path.symlink_to(path.name), "is a broken link"),
    ],
)
def test_what_dvc_cannot_read_in_data_source_is_named(
    tmp_path, monkeypatch, make, problem
):
    monkeypatch.chdir(tmp_path)
    folder = Path("data/source/pets/cat")
    folder.mkdir(parents=True)
    make(folder / "odd")

    with pytest.raises(InputError) as raised:
        check_source()

    assert str(raised.value) == (
        f"data/source/pets/cat/odd: {problem}: DVC has to read all files in "
        "data/source, and would hang or fail: delete it or move it elsewhere"
    )


@pytest.mark.skipif(os.getuid() == 0, reason="root can read everything")
@pytest.mark.parametrize("name", ["file", "folder"])
def test_what_may_not_be_read_in_data_source_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / name).chmod(0)

    with pytest.raises(InputError, match=f"{name}: cannot be read"):
        check_source(tmp_path)
    (tmp_path / name).chmod(0o700)


def test_files_folders_and_links_to_them_are_fine_in_data_source(tmp_path):
    (tmp_path / "source/a").mkdir(parents=True)
    (tmp_path / "source/a/1.png").touch()
    (tmp_path / "source/a/2.png").symlink_to("1.png")
    (tmp_path / "source/b").symlink_to("a")

    check_source(tmp_path / "source")
    check_source(tmp_path / "missing")


def test_make_repro_stops_at_a_fifo_with_one_line(tmp_path):
    (tmp_path / "data/source").mkdir(parents=True)
    os.mkfifo(tmp_path / "data/source/pipe")
    makefile = (ROOT / "Makefile").read_text()
    (command,) = [line for line in makefile.split("\n") if "environment" in line]
    assert makefile.index(command) < makefile.index("$(BIN)/dvc repro")

    module = command.split(" -m ")[1]
    result = subprocess.run(
        [sys.executable, "-m", module],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )

    assert result.returncode == 1
    assert result.stderr.startswith("error: data/source/pipe: is a FIFO: ")
    assert result.stderr.count("\n") == 1
