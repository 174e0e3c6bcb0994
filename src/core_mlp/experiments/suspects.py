"""Finds labels that are probably wrong, by models that have not seen their images.

This is confident learning: Northcutt et al., 2021: Confident learning: estimating
uncertainty in dataset labels. The test split is not read.
"""

import shutil
import warnings
from pathlib import Path

import numpy as np

from core_mlp.experiments.copies import Snapshot
from core_mlp.experiments.runner import (
    Task,
    hash_inputs,
    require_all,
    run_tasks,
    say,
)
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import process_lock
from core_mlp.pipeline.params import Params, load_params
from core_mlp.reporting.suspects import Suspects, write_suspects
from core_mlp.results.suspects import HELD_OUT, HeldOut

# What is known of each fold, so that an interrupted command goes on.
FOLDER = Path(".dvc/tmp/suspects")
PROGRAM = "core_mlp.serving.held_out"
MIN_FOLDS = 2


class FoldRun:
    """A training run without one fold, followed by questions about that fold.

    Attributes:
      state_folder: Where train keeps its state.
      answers: The file that has the answers in the end.
    """

    def __init__(self, answers: Path) -> None:
        self.state_folder = answers.with_suffix(".state")
        self.answers = answers

    def is_hopeless(self, project: Path) -> bool:
        """Returns whether to stop the run."""
        return False

    def end(self, project: Path) -> None:
        """Fetches the answers."""
        (project / HELD_OUT).replace(self.answers)


def run_suspects(num_folds: int, *, jobs: int = 1) -> None:
    """Trains a model per fold of train and validation, and lists suspicious labels.

    May be interrupted: it goes on from the folds that are done.

    Args:
      num_folds: How many folds.
      jobs: How many models to train at a time.

    Raises:
      InputError: If there are too few folds or too many, cleanlab is missing, or a
        training run fails.
    """
    if num_folds < MIN_FOLDS:
        raise InputError(f"--folds {num_folds}: expected {MIN_FOLDS} or more")
    # Imported here, before anything runs, because it takes seconds and may be missing.
    try:
        from cleanlab.filter import find_label_issues
    except ModuleNotFoundError as error:
        raise InputError(
            "core-mlp suspects needs cleanlab: run `make setup-dev` or `pip install "
            "cleanlab`"
        ) from error

    dataset = load_params(Params).dataset
    with process_lock(FOLDER / "lock", "looking for suspicious labels"):
        folds = train_folds(num_folds, jobs=jobs)
    labels = np.concatenate([fold.labels for fold in folds])
    probabilities = np.concatenate([fold.probabilities for fold in folds])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of classes with few images.
        found = find_label_issues(
            labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1
        )
    write_suspects(Suspects.of(dataset, folds, found))


def train_folds(num_folds: int, *, jobs: int) -> list[HeldOut]:
    """Returns the answers about each fold; runs those that are missing."""
    snapshot = Snapshot.take(None)
    folder = FOLDER / hash_inputs(snapshot.tree)[:16]
    for other in FOLDER.glob("*/"):
        if other != folder:  # Of other files or parameters.
            shutil.rmtree(other)
    folder.mkdir(exist_ok=True)
    numbers = range(1, num_folds + 1)
    runs = [FoldRun(folder / f"{number}-of-{num_folds}.npz") for number in numbers]
    tasks = [
        Task(
            f"fold {number} of {num_folds}",
            snapshot,
            settings=(),
            observer=run,
            program=(PROGRAM, str(number), str(num_folds)),
        )
        for number, run in zip(numbers, runs, strict=True)
        if not run.answers.exists()
    ]
    if tasks:
        outcomes = run_tasks(iter(tasks), total=len(tasks), jobs=min(jobs, len(tasks)))
        for outcome in require_all(outcomes):
            fold = HeldOut.read(outcome.task.observer.answers)
            share = 100 * np.mean(~fold.is_contradicted)
            say(f"{outcome.task.label}: {share:.2f} % of its labels were predicted")
    return [HeldOut.read(run.answers) for run in runs]
