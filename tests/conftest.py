"""What the tests share."""

import contextlib
import importlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from pydantic import ValidationError

# As in dvc.yaml, and before TensorFlow is imported by any test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
# TFDS reads this when it is imported: the tests prepare their datasets anew.
TFDS_DIR = tempfile.TemporaryDirectory()
os.environ["TFDS_DATA_DIR"] = TFDS_DIR.name
# Nor do they meet the user's own trainings.
STATE_DIR = tempfile.TemporaryDirectory()
os.environ["CORE_MLP_STATE_DIR"] = STATE_DIR.name

ROOT = Path(__file__).parent.parent
TEST_PARAMS = Path(__file__).parent / "params.yaml"


def write_params(folder: Path, **changes) -> None:
    """Writes a params.yaml of the tests' own values, with some changed.

    A parameter that the tests do not know has its default.
    """
    from core_mlp.params import Params

    values = Params(**yaml.safe_load(TEST_PARAMS.read_text())).model_dump()
    assert changes.keys() <= values.keys()
    text = yaml.safe_dump(values | changes, sort_keys=False)
    (folder / "params.yaml").write_text(text)


def pytest_terminal_summary(terminalreporter):
    """Prints what came of the faults that were injected."""
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for key, value in report.user_properties
        if key == "faults"
    ]
    if rows:
        terminalreporter.section("faults")
        row = "{:<36} {:>8} {:>8} {:>8} {:>9}".format
        terminalreporter.line(row("", "injected", "survived", "lost", "bit-equal"))
        for fault, injected, lost, bit_equal in sorted(rows):
            line = row(fault, injected, injected - lost, lost, bit_equal)
            terminalreporter.line(line)


def with_one_other_value(stage_params):
    """Yields copies of a stage's parameters; in each, another one has another value."""
    for key, value in stage_params.model_dump().items():
        for candidate in (0.5, 7, "bfloat16", "mnist", [9]):
            changed = stage_params.model_dump() | {key: candidate}
            with contextlib.suppress(ValidationError):
                if candidate != value:
                    yield type(stage_params)(**changed)
                    break
        else:
            raise AssertionError(f"no other value for {key}")


@pytest.fixture(scope="session", autouse=True)
def _deterministic_tensorflow():
    from core_mlp import training

    training.set_up_device()


@pytest.fixture(scope="session")
def tfds_dir():
    """TFDS's folder of prepared datasets."""
    return Path(TFDS_DIR.name)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A folder in which fetch and preprocess have run on sklearn_digits."""
    folder = tmp_path_factory.mktemp("digits")
    write_params(folder)
    run_stages(folder, "fetch", "preprocess")
    return folder


def run_stages(folder: Path, *names: str) -> None:
    """Runs stages in this process: quicker than `dvc repro`, which starts one each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in names:
            importlib.import_module(f"stages.{name}").main()


# The environment's commands first, and an identity for Git where there is none.
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}


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
    """Copies what Git tracks, or would, into a new repository with one commit."""
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


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A repository in which the pipeline has run on sklearn_digits."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    # The first worker makes it, each has a copy.
    with FileLock(shared / "pipeline.lock"):
        if not (shared / "pipeline").exists():
            make_pipeline(tmp_path_factory.mktemp("made")).rename(shared / "pipeline")
    return shutil.copytree(shared / "pipeline", own / "pipeline_copy")


def make_pipeline(folder: Path) -> Path:
    """Runs the pipeline in a copy of the repository, and commits the results."""
    copy_repository(folder)
    write_params(folder)
    # Not all: the SavedModel has names in it that are numbered by process.
    stages = ("fetch", "preprocess", "train")
    run_stages(folder, *stages)
    run("dvc", "commit", "--quiet", "--force", *stages, cwd=folder)
    run("dvc", "repro", cwd=folder)
    commit_all(folder, "Train on sklearn_digits")
    return folder


@pytest.fixture
def workspace(pipeline):
    """The same repository, brought back to its commit after the test."""
    yield pipeline
    run("git", "reset", "--quiet", "--hard", cwd=pipeline)
    run("git", "clean", "--quiet", "--force", "-d", cwd=pipeline)
    run("dvc", "checkout", "--quiet", "--force", cwd=pipeline)
