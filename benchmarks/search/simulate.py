"""Compares ways to search, at equal minutes, on tables of results.

    python benchmarks/search/simulate.py

Reads the tables that table.py has written beside it, writes results.json, and prints
it. A trial takes what its epochs took in the table, plus START seconds.

- grid: a product of some values of each parameter, as many as fit into the time.
- random, tpe: Optuna's samplers, with and without stopping hopeless trials, as
  `core-mlp search` does it.
"""

import itertools
import json
import statistics
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna

from core_mlp.experiments.study import REDUCTION, SAMPLERS

FOLDER = Path(__file__).parent
NUM_REPETITIONS = 100
MINUTES = (5, 10, 20, 40)
# Seconds of a trial without its epochs: DVC, the copy, the import of TensorFlow.
START = 12.0


class Table(NamedTuple):
    """The results of every setting of a grid.

    Attributes:
      values: By parameter, the number of its values.
      accuracies: By indices of the values, the validation accuracy of each epoch.
      seconds: By indices of the values, the seconds of an epoch.
    """

    values: dict[str, int]
    accuracies: dict[tuple[int, ...], list[float]]
    seconds: dict[tuple[int, ...], float]

    @property
    def num_epochs(self) -> int:
        """Of a run that did not diverge."""
        return max(map(len, self.accuracies.values()))


def read_table(path: Path) -> Table:
    """Reads a table that table.py has written."""
    header, *lines = [line.split(",") for line in path.read_text().splitlines()]
    names = header[:-2]
    columns = [
        list(dict.fromkeys(line[n] for line in lines)) for n in range(len(names))
    ]
    accuracies, seconds = {}, {}
    for line in lines:
        key = tuple(c.index(v) for c, v in zip(columns, line, strict=False))
        accuracies[key] = [float(text) for text in line[-1].split()]
        seconds[key] = float(line[-2]) / max(1, len(accuracies[key]))
    sizes = {name: len(c) for name, c in zip(names, columns, strict=True)}
    return Table(sizes, accuracies, seconds)


def run_grid(table: Table, minutes: float, rng: np.random.Generator) -> list[float]:
    """Returns the accuracies of a grid whose values are drawn, until time is up."""
    sizes = dict.fromkeys(table.values, 1)
    mean = START + statistics.fmean(table.seconds.values()) * table.num_epochs
    names = list(sizes)
    while True:
        # One more value of a parameter that has few, as long as the grid fits.
        bigger = [n for n in rng.permutation(names) if sizes[n] < table.values[n]]
        bigger.sort(key=sizes.get)
        fits = [
            name
            for name in bigger
            if np.prod([*sizes.values()]) / sizes[name] * (sizes[name] + 1) * mean
            <= 60 * minutes
        ]
        if not fits:
            break
        sizes[fits[0]] += 1
    axes = [
        sorted(rng.choice(table.values[name], sizes[name], replace=False))
        for name in names
    ]
    left, found = 60 * minutes, []
    for key in itertools.product(*axes):
        accuracies = table.accuracies[tuple(map(int, key))]
        left -= START + len(accuracies) * table.seconds[tuple(map(int, key))]
        if left < 0:
            break
        found += accuracies[table.num_epochs - 1 :]
    return found


def run_optuna(
    table: Table, minutes: float, *, sampler: str, stops: bool, seed: int
) -> tuple[list[float], int]:
    """Returns the accuracies of the trials that finished, and how many there were."""
    first_rung = max(1, table.num_epochs // REDUCTION**2)
    study = optuna.create_study(
        direction="maximize",
        sampler=SAMPLERS[sampler](seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(first_rung, REDUCTION),
    )
    left, found, known = 60 * minutes, [], set()
    while left > 0 and len(known) < len(table.accuracies):
        trial = study.ask()
        # Neighboring values are neighbors for Optuna, as in a range.
        key = tuple(trial.suggest_int(n, 0, k - 1) for n, k in table.values.items())
        if key in known:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            continue
        known.add(key)
        left -= START
        state = optuna.trial.TrialState.COMPLETE
        for epoch, accuracy in enumerate(table.accuracies[key], start=1):
            left -= table.seconds[key]
            trial.report(accuracy, epoch)
            if stops and epoch <= REDUCTION * first_rung and trial.should_prune():
                state = optuna.trial.TrialState.PRUNED
                break
        if len(table.accuracies[key]) < table.num_epochs:
            state = optuna.trial.TrialState.FAIL
        if left < 0:
            break
        if state == optuna.trial.TrialState.COMPLETE:
            found.append(accuracy)
            study.tell(trial, accuracy)
        else:
            study.tell(trial, state=state)
    return found, len(known)


def compare(table: Table) -> dict[str, dict]:
    """Returns, by way and minutes, the best accuracy and the trials per hour."""
    results = {}
    ways = {"grid": None} | {
        f"{sampler}{', stops' if stops else ''}": (sampler, stops)
        for sampler in SAMPLERS
        for stops in (False, True)
    }
    for way, minutes in itertools.product(ways, MINUTES):
        best, numbers = [], []
        for seed in range(NUM_REPETITIONS):
            if ways[way] is None:
                found = run_grid(table, minutes, np.random.default_rng(seed))
                number = len(found)
            else:
                sampler, stops = ways[way]
                found, number = run_optuna(
                    table, minutes, sampler=sampler, stops=stops, seed=seed
                )
            best.append(max(found, default=0.0))
            numbers.append(number)
        results[f"{way}, {minutes} minutes"] = {
            "best_mean": round(statistics.fmean(best), 5),
            "best_low": min(best),
            "best_high": max(best),
            "trials_per_hour": round(60 * statistics.fmean(numbers) / minutes, 1),
        }
    return results


def main() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = {}
    for path in sorted(FOLDER.glob("*.csv")):
        table = read_table(path)
        best = max(a[-1] for a in table.accuracies.values() if a)
        results[path.stem] = {"settings": len(table.accuracies), "best": best}
        results[path.stem] |= compare(table)
    (FOLDER / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    for dataset, found in results.items():
        print(dataset, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
