"""Helpers of the tests."""

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from core_mlp.pipeline.params import Params, TrainParams

ROOT = Path(__file__).parent.parent
TEST_PARAMS = Path(__file__).parent / "params.yaml"
STAGES = ("fetch", "preprocess", "train", "export", "evaluate")

# The environment's commands first, and an identity for Git where there is none.
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}


def write_params(folder: Path, **changes) -> None:
    """Writes a params.yaml of the tests' own values, with some changed.

    A parameter that the tests do not know has its default.
    """
    values = Params(**yaml.safe_load(TEST_PARAMS.read_text())).model_dump()
    assert changes.keys() <= values.keys()
    text = yaml.safe_dump(values | changes, sort_keys=False)
    # As DVC writes it, so that an experiment changes one line.
    (folder / "params.yaml").write_text(text.replace(": null\n", ":\n"))


def train_params(**changes) -> TrainParams:
    """Returns the tests' own parameters of train, with some changed."""
    values = Params(**yaml.safe_load(TEST_PARAMS.read_text())).model_dump() | changes
    return TrainParams(**{key: values[key] for key in TrainParams.model_fields})


def with_one_other_value(stage_params):
    """Yields copies of a stage's parameters; in each, another one has another value."""
    for key, value in stage_params.model_dump().items():
        for candidate in (0.5, 7, "bfloat16", "cosine", "mnist", [9], {"shift": 1.0}):
            changed = stage_params.model_dump() | {key: candidate}
            with contextlib.suppress(ValidationError):
                if candidate != value:
                    yield type(stage_params)(**changed)
                    break
        else:
            raise AssertionError(f"no other value for {key}")


def run_stages(folder: Path, *names: str) -> None:
    """Runs stages in this process, which is faster than `dvc repro`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in names:
            importlib.import_module(f"stages.{name}").main()


def start(*command: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """Starts a command; `stdout` has what it prints on both streams."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=os.environ | ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def try_to_run(
    *command: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess:
    """Runs a command to its end."""
    process = start(*command, cwd=cwd, **environment)
    output = process.communicate()[0]
    return subprocess.CompletedProcess(command, process.returncode, output)


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Runs a command that must succeed; returns what it printed."""
    result = try_to_run(*command, cwd=cwd, **environment)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"
    return result.stdout


def copy_repository(folder: Path) -> Path:
    """Copies the files of this repository into a new one with one commit."""
    files = run(
        "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT
    )
    for name in filter(None, files.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    run("git", "init", "--quiet", "--initial-branch=main", cwd=folder)
    commit_all(folder, "A copy")
    return folder


def commit_all(folder: Path, message: str) -> None:
    """Commits every change."""
    run("git", "add", "--all", cwd=folder)
    run("git", "commit", "--quiet", "--allow-empty", "--message", message, cwd=folder)


def stages_run(output: str) -> list[str]:
    """Returns the stages that DVC says it ran, in order."""
    return re.findall(r"Running stage '(\w+)'", output)
