"""Times the trials of a real search, with and without stopping hopeless ones.

    PYTHONPATH=. python benchmarks/search/stopping.py MINUTES CORE [--whole]

Searches space.yaml in the current folder, a clone of this repository after `dvc repro`,
on one core, one trial at a time, until the minutes are over; with --whole, no trial is
stopped. Writes a row for each trial to trials.csv. Run both at the same time, in a
clone each, and then again with the cores exchanged. Each time, the clone needs a DVC
cache of its own without runs: DVC would restore settings that have run before.

The results in this repository are of this space.yaml:

    learning_rate: [0.0001, 0.0003, 0.001, 0.003, 0.01]
    batch_size: [64, 128, 512]
    hidden_sizes: [[100], [700, 500]]
    weight_decay: [0.0, 0.1]
    ema_decay: [0.0, 0.999]
"""

import csv
import os
import sys
import time
from pathlib import Path

import optuna

from core_mlp.experiments.runner import run_tasks
from core_mlp.experiments.space import Space
from core_mlp.experiments.study import OUTCOMES, Study

MAX_TRIALS = 1000


def main() -> None:
    minutes, core, *options = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    if options == ["--whole"]:
        # The study makes its pruner with arguments.
        optuna.pruners.SuccessiveHalvingPruner = lambda *_: optuna.pruners.NopPruner()
    study = Study(Space.read(Path("space.yaml")))
    deadline = time.monotonic() + 60 * float(minutes)
    with study.working():
        tasks = study.tasks(MAX_TRIALS)
        for outcome in run_tasks(tasks, total=MAX_TRIALS, deadline=deadline):
            study.finish(outcome)
    with Path("trials.csv").open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["trial", "outcome", "epochs", "seconds", "accuracy"])
        for trial in study.trials():
            seconds = f"{trial.duration.total_seconds():.1f}"
            outcome = OUTCOMES[trial.state]
            writer.writerow(
                [trial.number, outcome, trial.last_step, seconds, trial.value]
            )


if __name__ == "__main__":
    main()
