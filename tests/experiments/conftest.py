"""A project whose experiments are stand-ins, which take no time."""

import os
import stat
from pathlib import Path

import pytest
from helpers import ENVIRONMENT, commit_all, run

from core_mlp.experiments import runner


@pytest.fixture
def project(request, tmp_path, monkeypatch):
    """A repository in which a stand-in runs instead of `python`.

    The test module's STAND_IN is its program: it gets the arguments with which the
    runner starts experiments, and $STAND_INS, a folder for its notes.
    """
    folder = tmp_path / "a project"
    (folder / "src").mkdir(parents=True)
    (folder / "src/code.py").write_text("code")
    run("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    run("dvc", "init", "--quiet", cwd=folder)
    commit_all(folder, "A project")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "python").write_text(request.module.STAND_IN)
    (programs / "python").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{ENVIRONMENT['PATH']}")
    monkeypatch.setenv("STAND_INS", str(programs))
    monkeypatch.setattr(runner, "read_run", lambda name, with_seeds: name)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def notes(project) -> Path:
    """The folder in which stand-ins leave notes."""
    return Path(os.environ["STAND_INS"])
