"""Trains the current parameters with several seeds, and summarizes the results.

The spread over seeds is the noise of training; the interval in metrics/evaluate.json is
the sampling noise of the test images, for one model.
"""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from tqdm import tqdm

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import write_json
from core_mlp.pipeline.metadata import first_problem
from core_mlp.reporting import significance
from core_mlp.reporting.runs import SEED_METRICS, Run, Seeds, read_run

SEEDS_FILE = Path("metrics/seeds.json")
# With two or three against 20, Welch's test is wrong too often; see docs/noise.md.
MIN_SEEDS = 5


def run_seeds(
    number: int,
    path: Path = SEEDS_FILE,
    *,
    settings: Sequence[str] = (),
    replace: bool = False,
) -> None:
    """Runs the seeds 1 to `number`, and writes their results.

    The file contains the mean, standard deviation and 95 % t interval of each metric,
    and the result of each seed.

    Args:
      number: How many seeds.
      path: The file.
      settings: Arguments of `dvc exp run` that override params.yaml.
      replace: Whether to replace even the results of more seeds.

    Raises:
      InputError: If there are too few seeds, or an experiment fails.
    """
    if number < MIN_SEEDS:
        raise InputError(
            f"N = {number}: expected {MIN_SEEDS} or more, since fewer seeds do not "
            "give a reliable spread"
        )
    if not replace:
        check_existing(path, number)
    runs = []
    for seed in tqdm(range(1, number + 1), unit="seed", disable=None):
        runs.append(run_seed(seed, settings))
        accuracy = runs[-1].metrics["test_accuracy"]
        tqdm.write(f"seed {seed}: test accuracy {accuracy:.4f}")
    if len({run.identity for run in runs}) > 1:
        raise InputError("the code changed between the experiments")
    write_seeds(path, runs)


def check_existing(path: Path, number: int) -> None:
    """Raises InputError if a file holds the results of more seeds, or is corrupt."""
    if not path.exists():
        return
    try:
        existing = len(Seeds.model_validate_json(path.read_bytes()).runs)
    except ValidationError as error:
        problem = f"{first_problem(error)}; --replace overwrites it"
        raise InputError(f"{path}: corrupt: {problem}") from error
    if existing > number:
        raise InputError(
            f"{path} has the results of {existing} seeds: to replace them with those "
            f"of {number}, add --replace"
        )


def run_seed(seed: int, settings: Sequence[str]) -> Run:
    """Runs one seed as an experiment; DVC restores it if it has run before."""
    # With --temp, it runs in a copy, and the workspace stays as it is.
    command = ["dvc", "exp", "run", "--temp", *settings, "-S", f"seed={seed}"]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    name = re.search(r"Ran experiment\(s\): (\S+)", done.stdout)
    if done.returncode or not name:
        print(done.stdout, file=sys.stderr)
        last_line = " ".join(done.stdout.strip().splitlines()[-1:])
        raise InputError(f"{' '.join(command)}: {last_line}")
    return read_run(name[1])


def write_seeds(path: Path, runs: Sequence[Run]) -> None:
    """Writes the results of several seeds of one setting, and prints their summary."""
    # Not `run.results`: those may be of the seeds.json that the experiment began with.
    results = [run.own_result for run in runs]
    for result in results:
        result.metrics = {name: result.metrics[name] for name in SEED_METRICS}
    summaries = {
        name: significance.summarize([result.metrics[name] for result in results])
        for name in SEED_METRICS
    }
    content = {
        "identity": runs[0].identity,
        "summary": {name: s._asdict() for name, s in summaries.items()},
        "runs": [result.model_dump() for result in results],
    }
    write_json(path, content)
    print(f"Wrote {path}: {len(runs)} seeds, mean ± sd (95 % t interval of the mean)")
    for name, s in summaries.items():
        print(f"  {name}: {s.mean:.4f} ± {s.sd:.4f} ({s.low:.4f} to {s.high:.4f})")
