"""Helpers of the tests."""

import contextlib
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pydantic import ValidationError

from core_mlp import cli
from core_mlp.pipeline.params import Params, TrainParams
from core_mlp.pipeline.provenance import recorded

ROOT = Path(__file__).parent.parent
TEST_PARAMS = Path(__file__).parent / "params.yaml"
STAGES = ("fetch", "preprocess", "train", "export", "evaluate")

# The environment's commands are first; Git gets an identity, which may be missing.
ENVIRONMENT = {
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
}


def write_params(folder: Path, **changes) -> None:
    """Writes a params.yaml with the tests' own values, some of them changed.

    A parameter that the tests do not set gets its default.
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


# For each parameter, at least one of them is another valid value.
OTHER_VALUES = (0.5, 7, "bfloat16", "cosine", "balanced", "mnist", [9], {"shift": 1.0})


def with_one_other_value(stage_params):
    """Yields copies of a stage's parameters, each with one value changed."""
    for key, value in stage_params.model_dump().items():
        for candidate in OTHER_VALUES:
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
            with recorded(name):
                importlib.import_module(f"stages.{name}").main()


def start(*command: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """Starts a command; its `stdout` also carries what it prints to stderr."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=os.environ | ENVIRONMENT | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_preloaded(*command: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """Starts a command with libraries that are imported already; see preloaded.py."""
    folder = os.environ.get("PRELOADED")
    if folder:
        path = f"{folder}{os.pathsep}{ENVIRONMENT['PATH']}"
        environment = {"PATH": path} | environment
    return start(*command, cwd=cwd, **environment)


def try_to_run(
    *command: str, cwd: Path, **environment: str
) -> subprocess.CompletedProcess:
    """Runs a command to its end, with libraries that are imported already."""
    process = start_preloaded(*command, cwd=cwd, **environment)
    output = process.communicate()[0]
    return subprocess.CompletedProcess(command, process.returncode, output)


def run(*command: str, cwd: Path, **environment: str) -> str:
    """Runs a command that must succeed; returns what it printed."""
    result = try_to_run(*command, cwd=cwd, **environment)
    assert result.returncode == 0, f"{' '.join(command)}\n{result.stdout}"
    return result.stdout


def core_mlp(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Runs the command `core-mlp` in this process, which is faster."""
    printed = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["core-mlp", *arguments])
        patch.setenv("PATH", ENVIRONMENT["PATH"])  # The command changes it.
        try:
            cli.main()
            code = 0
        except SystemExit as ended:  # With a message, Python exits with 1.
            code = ended.code or 0
            if isinstance(code, str):
                print(code)
                code = 1
    return subprocess.CompletedProcess(arguments, code, printed.getvalue())


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


# The path of the pen for each digit: columns and rows in percent.
STROKES = {
    0: "50,0 80,9 95,35 95,65 80,91 50,100 20,91 5,65 5,35 20,9 50,0",
    1: "50,0 50,100",
    2: "10,20 30,0 70,0 90,25 75,50 10,100 95,100",
    3: "10,10 50,0 85,15 80,38 45,48 85,60 90,85 50,100 10,90",
    4: "15,0 10,50 85,50 85,0 80,100",
    5: "90,0 25,0 20,42 60,38 90,65 75,95 35,100 10,88",
    6: "75,0 35,30 12,70 30,97 65,97 85,75 65,55 20,65",
    7: "10,0 90,0 40,100",
    8: "50,0 80,8 85,25 30,58 15,75 20,92 50,100 80,92 85,75 30,42 15,25 20,8 50,0",
    9: "85,25 60,48 20,42 15,15 45,0 80,8 85,25 75,100",
}


def draw_digit(
    digit: int, rng: np.random.Generator, *, is_dark_on_light: bool
) -> Image.Image:
    """Draws a digit at a random place, in a random size, slant and thickness."""
    width, height = rng.integers(200, 500, 2).tolist()
    tall = rng.uniform(0.4, 0.7) * min(width, height)
    wide = rng.uniform(0.55, 0.75) * tall
    slant = rng.uniform(-0.3, 0.3)
    left = rng.uniform(0.2 * tall, width - wide - 0.2 * tall)
    top = rng.uniform(0.1 * tall, height - 1.1 * tall)
    points = []
    for pair in STROKES[digit].split():
        x, y = (int(number) / 100 for number in pair.split(","))
        points.append((left + wide * x + slant * tall * (0.5 - y), top + tall * y))
    paper, ink = (255, 0) if is_dark_on_light else (0, 255)
    image = Image.new("L", (width, height), paper)
    radius = tall * rng.uniform(0.03, 0.08)
    pen = ImageDraw.Draw(image)
    pen.line(points, ink, round(2 * radius), joint="curve")
    for x, y in points:
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], ink)
    return image
