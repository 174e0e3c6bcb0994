"""Trains every setting of a grid, and notes the validation accuracy of each epoch.

    PYTHONPATH=. python benchmarks/search/table.py DATASET [PART PARTS]

Writes benchmarks/search/DATASET.csv. It goes on after an interruption. With PARTS,
several processes share the work: each writes a file of its own, DATASET.PART.csv.
DATASET is mnist, with the data of the last `dvc repro` (an hour and a half of one
core), or sklearn_digits, which is prepared in a temporary folder (ten minutes).
"""

import contextlib
import csv
import io
import itertools
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import stages  # noqa: F401  # isort: skip

from ruamel.yaml import YAML

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import read_yaml
from core_mlp.training.device import set_up_device
from stages import fetch, preprocess, train

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
GRIDS = {
    "mnist": {
        "learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
        "batch_size": [64, 128, 512],
        "hidden_sizes": [[100], [700, 500]],
        "weight_decay": [0.0, 0.01],
        "ema_decay": [0.0, 0.999],
    },
    "sklearn_digits": {
        "learning_rate": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2],
        "batch_size": [32, 128],
        "hidden_sizes": [[32], [128], [700, 500]],
        "weight_decay": [0.0, 0.1],
        "ema_decay": [0.0, 0.9],
    },
}
CHANGES = {
    "mnist": {},
    "sklearn_digits": {"validation_size": 300, "test_size": 360, "epochs": 30},
}
COLUMNS = ("cpu_seconds", "validation_accuracies")


def main() -> None:
    set_up_device()  # Before a stage makes tensors.
    dataset = sys.argv[1]
    part, parts = map(int, sys.argv[2:]) if sys.argv[2:] else (0, 1)
    grid = GRIDS[dataset]
    name = f"{dataset}.{part}.csv" if parts > 1 else f"{dataset}.csv"
    path = FOLDER / name
    if not path.exists():
        path.write_text(",".join([*grid, *COLUMNS]) + "\n")
    num_done = len(path.read_text().splitlines()) - 1
    params = read_yaml(ROOT / "params.yaml") | {"dataset": dataset} | CHANGES[dataset]
    settings = list(itertools.product(*grid.values()))[part::parts]
    with prepared_data(dataset, params) as data:
        for values in settings[num_done:]:
            seconds, accuracies = run_train(
                params | dict(zip(grid, values, strict=True)), data
            )
            fields = [str(value).replace(", ", " ") for value in values]
            row = [*fields, f"{seconds:.1f}", " ".join(accuracies)]
            with path.open("a") as file:
                file.write(",".join(row) + "\n")
            print(*row[:-1], accuracies[-1:], flush=True)


@contextlib.contextmanager
def prepared_data(dataset: str, params: dict[str, Any]) -> Iterator[Path]:
    """Yields a folder with the TFRecords of a dataset."""
    if dataset == "mnist":
        yield ROOT / "data"
        return
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        YAML().dump(params, Path("params.yaml"))
        fetch.main()
        preprocess.main()
        yield Path(folder, "data")


def run_train(params: dict[str, Any], data: Path) -> tuple[float, list[str]]:
    """Runs train; returns its processor time, and the accuracy of each epoch."""
    with TemporaryDirectory() as folder:
        os.environ["CORE_MLP_STATE_DIR"] = f"{folder}/state"
        os.chdir(folder)
        Path("data").mkdir()
        Path("data/tfrecords").symlink_to(data / "tfrecords")
        YAML().dump(params, Path("params.yaml"))
        start = time.process_time()
        # A run that diverges has the accuracies of the epochs before.
        with (
            contextlib.suppress(InputError),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            train.main()
        seconds = time.process_time() - start
        history = Path("plots/history.csv")
        rows = []
        if history.exists():
            rows = list(csv.DictReader(history.read_text().splitlines()))
        os.chdir(ROOT)
    return seconds, [row["validation_accuracy"] for row in rows]


if __name__ == "__main__":
    main()
