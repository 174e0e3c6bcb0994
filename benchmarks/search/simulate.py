"""Compares ways to search, at equal minutes, on tables of results.

    PYTHONPATH=. python benchmarks/search/simulate.py

Reads the tables that table.py has written beside it, writes results.json, and prints
it. A trial takes what its epochs took in the table, plus START seconds.

- grid: a product of some values of each parameter, as many as fit into the time.
- random, tpe: Optuna's samplers, with and without stopping hopeless trials, as
  `core-mlp search` does it.
"""

import itertools
import math
import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from core_mlp.experiments.study import RANDOM_DRAWS, REDUCTION, TPE_DRAWS
from core_mlp.pipeline.files import write_json

FOLDER = Path(__file__).parent
NUM_REPETITIONS = 20
MINUTES = (5, 10, 20, 40)
# Seconds of a trial without its epochs: its copy, DVC, the import of TensorFlow.
START = 20.0
SAMPLERS = {"random": RandomSampler, "tpe": TPESampler}
# Indices of the values, one for each parameter.
Setting = tuple[int, ...]


class Table(NamedTuple):
    """The results of every setting of a grid.

    Attributes:
      sizes: By parameter, the number of its values.
      accuracies: By setting, the validation accuracy of each epoch.
      seconds: By setting, the seconds of an epoch.
    """

    sizes: dict[str, int]
    accuracies: dict[Setting, list[float]]
    seconds: dict[Setting, float]

    @property
    def num_epochs(self) -> int:
        """Of a run that does not diverge."""
        return max(map(len, self.accuracies.values()))

    def final_accuracy(self, setting: Setting) -> float:
        """Returns the accuracy after all epochs; 0 if training diverged."""
        accuracies = self.accuracies[setting]
        return accuracies[-1] if len(accuracies) == self.num_epochs else 0.0

    def cost(self, setting: Setting, num_epochs: int) -> float:
        """Returns the seconds of a trial that trains some epochs."""
        return START + num_epochs * self.seconds[setting]


class Trial(NamedTuple):
    """A trial that has ended.

    Attributes:
      end: Seconds since the search began.
      accuracy: After all epochs; 0 for a trial that was stopped or diverged.
    """

    end: float
    accuracy: float


def read_table(path: Path) -> Table:
    """Reads a table that table.py has written."""
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    names = header[:-2]
    values = [list(dict.fromkeys(row[n] for row in rows)) for n in range(len(names))]
    accuracies, seconds = {}, {}
    for *texts, cpu_seconds, epochs in rows:
        setting = tuple(
            known.index(text) for known, text in zip(values, texts, strict=True)
        )
        accuracies[setting] = [float(text) for text in epochs.split()]
        seconds[setting] = float(cpu_seconds) / max(1, len(accuracies[setting]))
    sizes = {name: len(known) for name, known in zip(names, values, strict=True)}
    return Table(sizes, accuracies, seconds)


def search_grid(table: Table, minutes: float, seed: int) -> list[Trial]:
    """Trains a grid that fits into the time: some values of each parameter."""
    rng = np.random.default_rng(seed)
    mean = statistics.fmean(table.cost(s, table.num_epochs) for s in table.accuracies)
    sizes = dict.fromkeys(table.sizes, 1)
    while True:
        # One more value of a parameter that has few, as long as the grid fits.
        num_settings = math.prod(sizes.values())
        growing = [
            name
            for name in rng.permutation(list(sizes))
            if sizes[name] < table.sizes[name]
            and num_settings * (sizes[name] + 1) / sizes[name] * mean <= 60 * minutes
        ]
        if not growing:
            break
        sizes[min(growing, key=sizes.get)] += 1
    values = [
        rng.choice(table.sizes[name], size, replace=False).tolist()
        for name, size in sizes.items()
    ]
    end = 0.0
    trials = []
    for setting in itertools.product(*values):
        accuracies = table.accuracies[setting]
        end += table.cost(setting, len(accuracies))
        trials.append(Trial(end, table.final_accuracy(setting)))
    return trials


def search_with_optuna(
    table: Table,
    minutes: float,
    seed: int,
    *,
    sampler: type[BaseSampler],
    stops: bool,
) -> list[Trial]:
    """Runs trials that Optuna draws, and stops if `stops`, until time is up."""
    first_rung = max(1, table.num_epochs // REDUCTION**2)
    last_rung = first_rung * REDUCTION if stops else 0
    study = optuna.create_study(
        direction="maximize",
        sampler=sampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(first_rung, REDUCTION),
    )
    samplers = TPE_DRAWS * [study.sampler] + RANDOM_DRAWS * [RandomSampler(seed)]
    end = 0.0
    trials = []
    known = set()
    while end < 60 * minutes and (trial := draw_new(study, samplers, table, known)):
        setting = tuple(trial.params.values())
        known.add(setting)
        num_epochs = 0
        is_stopped = False
        for accuracy in table.accuracies[setting]:
            num_epochs += 1
            trial.report(accuracy, num_epochs)
            if num_epochs <= last_rung and trial.should_prune():
                is_stopped = True
                break
        end += table.cost(setting, num_epochs)
        accuracy = 0.0 if is_stopped else table.final_accuracy(setting)
        trials.append(Trial(end, accuracy))
        if is_stopped:
            study.tell(trial, state=TrialState.PRUNED)
        elif accuracy:
            study.tell(trial, accuracy)
        else:
            study.tell(trial, state=TrialState.FAIL)
    return trials


def draw_new(
    study: optuna.Study,
    samplers: list[BaseSampler],
    table: Table,
    known: set[Setting],
) -> optuna.Trial | None:
    """Draws a setting that was not drawn before; returns None if no sampler does."""
    for sampler in samplers:
        study.sampler = sampler
        trial = study.ask()
        # Neighboring values are neighbors for Optuna, as in a range.
        for name, size in table.sizes.items():
            trial.suggest_int(name, 0, size - 1)
        if tuple(trial.params.values()) not in known:
            return trial
        study.tell(trial, state=TrialState.FAIL)
    return None


def summarize(searches: list[list[Trial]], minutes: float) -> dict[str, float]:
    """Returns the best accuracies of several searches, and trials per hour."""
    in_time = [
        [trial.accuracy for trial in trials if trial.end <= 60 * minutes]
        for trials in searches
    ]
    best = [max(accuracies, default=0.0) for accuracies in in_time]
    return {
        "best_mean": round(statistics.fmean(best), 5),
        "best_low": min(best),
        "best_high": max(best),
        "trials_per_hour": round(60 / minutes * statistics.fmean(map(len, in_time)), 1),
    }


def compare(table: Table) -> dict[str, dict[str, float]]:
    """Returns the summary of each way to search, for each number of minutes."""
    seeds = range(NUM_REPETITIONS)
    results = {}
    for minutes in MINUTES:
        searches = [search_grid(table, minutes, seed) for seed in seeds]
        results[f"grid, {minutes} minutes"] = summarize(searches, minutes)
    for (name, sampler), stops in itertools.product(SAMPLERS.items(), (False, True)):
        searches = [
            search_with_optuna(table, max(MINUTES), seed, sampler=sampler, stops=stops)
            for seed in seeds
        ]
        way = f"{name}, stops" if stops else name
        for minutes in MINUTES:
            results[f"{way}, {minutes} minutes"] = summarize(searches, minutes)
    return results


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = {}
    for path in sorted(FOLDER.glob("*.csv")):
        table = read_table(path)
        best = max(table.final_accuracy(setting) for setting in table.accuracies)
        results[path.stem] = {"settings": len(table.accuracies), "best": best}
        results[path.stem] |= compare(table)
    write_json(FOLDER / "results.json", results)
    for dataset, found in results.items():
        print(dataset)
        for way, summary in found.items():
            print(" ", way, summary)


if __name__ == "__main__":
    main()
