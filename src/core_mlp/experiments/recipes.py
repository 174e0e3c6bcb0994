"""Recipes: tested sets of parameters in recipes/, run as experiments."""

import io
import re
import shlex
import subprocess
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ruamel.yaml import YAML

from core_mlp.experiments.seeds import run_seeds
from core_mlp.experiments.settings import experiment_command, to_params, to_setting
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import read_yaml, write_text
from core_mlp.reporting.runs import flatten

FOLDER = Path("recipes")
NAME = re.compile(r"[A-Za-z0-9_-]+")


def run_recipe(
    name: str, *, queue: bool = False, num_seeds: int | None = None, jobs: int = 1
) -> None:
    """Runs or queues the parameters of recipes/NAME.yaml as an experiment of DVC.

    With `num_seeds`, runs that many seeds, `jobs` at a time, and writes
    recipes/NAME.json, the evidence. Without a name, prints the names.

    Raises:
      InputError: If there is no such recipe, or the experiment fails.
    """
    path = FOLDER / f"{name}.yaml"
    names = sorted(file.stem for file in FOLDER.glob("*.yaml"))
    if not name:
        print(*names, sep="\n")
        return
    if name not in names:
        found = ", ".join(names) or "none"
        raise InputError(f"no recipe {name!r}; {FOLDER}/ has {found}")
    values = flatten(read_yaml(path))
    settings = [to_setting(key, value) for key, value in values.items()]
    if num_seeds:
        evidence = path.with_suffix(".json")
        run_seeds(num_seeds, evidence, settings=settings, jobs=jobs)
        return
    apply_settings(settings, queue=queue)


def apply_settings(settings: Sequence[str], *, queue: bool = False) -> None:
    """Runs settings, each as KEY=VALUE, as an experiment of DVC in the workspace.

    Raises:
      InputError: If the experiment fails.
    """
    command = experiment_command(settings)
    if queue:
        command.append("--queue")
    print(shlex.join(command), flush=True)
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"{' '.join(settings)}: the experiment failed")


def path_of_new(name: str) -> Path:
    """Returns the file of a recipe that does not exist yet.

    Raises:
      InputError: If there is one, or the name is not that of a file.
    """
    path = FOLDER / f"{name}.yaml"
    if not NAME.fullmatch(name):
        raise InputError(f"{name}: expected letters, digits, '_' and '-' as a name")
    if path.exists():
        raise InputError(f"{path}: there is such a recipe: give it another name")
    return path


def save_recipe(path: Path, settings: Sequence[str], comment: str) -> None:
    """Writes a recipe with settings, each as KEY=VALUE, under a comment."""
    lines = textwrap.wrap(comment, initial_indent="# ", subsequent_indent="# ")
    file = io.StringIO()
    YAML().dump(to_params(settings), file)
    write_text(path, "\n".join(lines) + "\n" + file.getvalue())
