"""Searches hyperparameters on the validation split; never reads the test split.

    python recipes/search.py NAME KEY=VALUE ...

Runs the train stage, in a temporary folder, with params.yaml and the given changes, and
appends a row to recipes/search.csv.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_suffix(".csv")


def main() -> None:
    name, *settings = sys.argv[1:]
    params = yaml.safe_load((ROOT / "params.yaml").read_text("utf-8"))
    for setting in settings:
        path, value = setting.split("=")
        *groups, key = path.split(".")
        values = params[groups[0]] if groups else params
        values[key] = yaml.safe_load(value)
    with TemporaryDirectory() as folder:
        Path(folder, "data").symlink_to(ROOT / "data")
        Path(folder, "params.yaml").write_text(yaml.safe_dump(params))
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        start = time.monotonic()
        command = [sys.executable, "-m", "stages.train"]
        subprocess.run(command, cwd=folder, env=environment, check=True)
        seconds = time.monotonic() - start
        metrics = json.loads(Path(folder, "metrics/train.json").read_text())
    accuracy = metrics["validation_accuracy"]
    loss = metrics["validation_loss"]
    with RESULTS.open("a") as file:
        row = f"{name},{accuracy:.4f},{loss:.4f},{seconds:.0f},{' '.join(settings)}"
        file.write(f"{row}\n")


if __name__ == "__main__":
    main()
