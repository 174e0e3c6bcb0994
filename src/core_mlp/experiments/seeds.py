"""Trains a setting with several seeds, and summarizes the results.

The spread over seeds is the noise of training; the interval in metrics/evaluate.json is
the sampling noise of the test images, for one model.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from core_mlp.experiments.copies import Snapshot
from core_mlp.experiments.runner import (
    Outcome,
    Task,
    require_all,
    run_experiments,
    say,
)
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import write_csv, write_json
from core_mlp.pipeline.metadata import first_problem
from core_mlp.reporting.runs import SEED_METRICS, Run, SeedRun, Seeds, read_run
from core_mlp.reporting.significance import summarize
from core_mlp.results.seeds import SeedResult

SEEDS_FILE = Path("metrics/seeds.json")
SEEDS_PLOT = Path("plots/seeds.csv")
MIN_RUNS = 2


class Setting:
    """One setting, and the results of its seeds so far.

    Attributes:
      name: What people call it: a revision, or "workspace".
      run: One of its runs; None until it is known.
      results: The result of each seed.
    """

    def __init__(self, revision: str | None, settings: Sequence[str] = ()) -> None:
        """Takes a snapshot of a revision, or of the workspace with its changes.

        Args:
          revision: The revision; its own results count. None for the workspace, whose
            results may be of other files.
          settings: What is changed in params.yaml, each as KEY=VALUE.
        """
        self.name = revision or "workspace"
        self.run: Run | None = None
        self.results: dict[int, SeedRun] = {}
        self._snapshot = Snapshot.take(revision)
        self._settings = tuple(settings)
        if revision is not None:
            run = read_run(revision)
            self.add(run)
            self.reuse(run.seeds)

    def task(self, seed: int) -> Task:
        """Returns the experiment that trains one seed."""
        settings = (*self._settings, f"seed={seed}")
        return Task(f"seed {seed} of {self.name}", self._snapshot, settings)

    def missing(self, number: int) -> list[int]:
        """Returns the seeds that are needed until there are so many results."""
        seeds = [n for n in range(1, number + 1) if n not in self.results]
        return seeds[: max(0, number - len(self.results))]

    def add(self, run: Run) -> None:
        """Adds the result of a run.

        Raises:
          InputError: If it has other settings than the results so far.
        """
        if self.run is None:
            self.run = run._replace(name=self.name)
        elif run.identity != self.run.identity:
            raise InputError(
                f"{self.name}: its dvc.lock and results are not those of its own code, "
                "parameters or data: run `dvc repro` there and commit the results"
            )
        result = run.own_result
        self.results[result.seed] = result

    def reuse(self, seeds: Seeds | None) -> None:
        """Adds the results in a seeds.json, if there are any and of this setting."""
        if seeds is not None and seeds.identity == self.run.identity:
            for result in seeds.runs:
                self.results.setdefault(result.seed, result)

    def seeds(self) -> Seeds:
        """Returns the results of all seeds; there must be two or more."""
        runs = [self.results[seed] for seed in sorted(self.results)]
        return Seeds(identity=self.run.identity, runs=runs)

    def run_with_seeds(self) -> Run:
        """Returns the run with the results of all seeds."""
        several = len(self.results) >= MIN_RUNS
        return self.run._replace(seeds=self.seeds() if several else None)


def run_seeds(
    number: int,
    path: Path = SEEDS_FILE,
    *,
    settings: Sequence[str] = (),
    replace: bool = False,
    jobs: int = 1,
) -> None:
    """Runs the seeds 1 to `number` of the workspace, and writes their results.

    The file contains the mean, standard deviation and t interval of each metric, and
    the result of each seed.

    Args:
      number: How many seeds.
      path: The file. What it has of the same setting is not run again.
      settings: What is changed in params.yaml, each as KEY=VALUE.
      replace: Whether to ignore what the file has, even the results of more seeds.
      jobs: How many to run at a time.

    Raises:
      InputError: If there are too few seeds, or an experiment fails.
    """
    if number < MIN_RUNS:
        raise InputError(
            f"N = {number}: expected {MIN_RUNS} or more, since one seed does not show "
            "a spread"
        )
    existing = None if replace else read_seeds(path)
    if existing and len(existing.runs) > number:
        raise InputError(
            f"{path} has the results of {len(existing.runs)} seeds: to replace them "
            f"with those of {number}, add --replace"
        )
    setting = Setting(None, settings)
    run_seeds_of(setting, [1])
    setting.reuse(existing)
    run_seeds_of(setting, setting.missing(number), jobs=jobs)
    write_seeds(path, setting.seeds())


def run_seeds_of(setting: Setting, seeds: Sequence[int], *, jobs: int = 1) -> None:
    """Runs some seeds of a setting, and adds their results."""
    tasks = [setting.task(seed) for seed in seeds]
    for outcome in require_all(run_experiments(tasks, jobs=jobs)):
        setting.add(outcome.run)
        say_metric(outcome)


def say_metric(outcome: Outcome, metric: str = "test_accuracy") -> None:
    """Prints a metric of an experiment, if it has it."""
    if metric in outcome.run.metrics:
        value = outcome.run.metrics[metric]
        say(f"{outcome.task.label}: {metric.replace('_', ' ')} {value:.4f}")


def read_seeds(path: Path) -> Seeds | None:
    """Reads results of seeds; returns None if there are none.

    Raises:
      InputError: If the file is corrupt.
    """
    if not path.exists():
        return None
    try:
        return Seeds.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = f"{first_problem(error)}; `core-mlp seeds N --replace` overwrites it"
        raise InputError(f"{path}: corrupt: {problem}") from error


def write_seeds(path: Path, seeds: Seeds) -> None:
    """Writes the results of several seeds of one setting, and prints their summary.

    Writes those of the workspace, SEEDS_FILE, to SEEDS_PLOT as well.
    """
    # Results of an earlier version may lack a metric.
    names = [
        name
        for name in SEED_METRICS
        if all(name in result.metrics for result in seeds.runs)
    ]
    summaries = {
        name: summarize([result.metrics[name] for result in seeds.runs])
        for name in names
    }
    content = {
        "identity": seeds.identity,
        "summary": {name: summary._asdict() for name, summary in summaries.items()},
        "runs": [result.model_dump() for result in seeds.runs],
    }
    write_json(path, content)
    written = str(path)
    if path == SEEDS_FILE:
        rows = seeds.model_copy(update={"summary": summaries}).rows()
        write_csv(SEEDS_PLOT, rows, SeedResult)
        written = f"{path} and {SEEDS_PLOT}"
    print(f"Wrote {written}: {len(seeds.runs)} seeds, mean ± sd (interval of the mean)")
    for name, s in summaries.items():
        interval = "" if s.low is None else f" ({s.low:.4f} to {s.high:.4f})"
        print(f"  {name}: {s.mean:.4f} ± {s.sd:.4f}{interval}")
