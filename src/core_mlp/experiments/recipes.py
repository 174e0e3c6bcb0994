"""Recipes: tested sets of parameters in recipes/, run as experiments."""

import json
import shlex
import subprocess
from pathlib import Path

from core_mlp.experiments.seeds import run_seeds
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import parse_yaml
from core_mlp.reporting.runs import flatten

FOLDER = Path("recipes")


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
    values = parse_yaml(path.read_text("utf-8"))
    settings = []
    for key, value in flatten(values).items():
        text = value if isinstance(value, str) else json.dumps(value)
        settings.append(f"{key}={text}")
    if num_seeds:
        evidence = path.with_suffix(".json")
        run_seeds(num_seeds, evidence, settings=settings, jobs=jobs)
        return
    command = ["dvc", "exp", "run"]
    for setting in settings:
        command += ["-S", setting]
    if queue:
        command.append("--queue")
    print(shlex.join(command), flush=True)
    if subprocess.run(command, check=False).returncode:
        raise InputError(f"{name}: the experiment failed")
