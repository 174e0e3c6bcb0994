"""Searches for good parameters by validation; the test split is never evaluated."""

import shlex
import time
from itertools import chain
from pathlib import Path

from core_mlp.experiments import recipes
from core_mlp.experiments.runner import Task, run_tasks, say
from core_mlp.experiments.settings import experiment_command
from core_mlp.experiments.space import Space
from core_mlp.experiments.study import Study
from core_mlp.experiments.trials import TrainingRun
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import process_lock
from core_mlp.reporting.search import SearchResult, write_search, write_trials

# The best setting, and params.yaml as it is, are trained with so many new seeds.
NUM_SEEDS = 3


def run_search(
    path: Path,
    *,
    number: int,
    jobs: int = 1,
    minutes: float = float("inf"),
    apply: bool = False,
    name: str = "",
) -> None:
    """Searches a space, checks the best setting with new seeds, and writes a report.

    May be interrupted: it goes on from the study beside the space.

    Args:
      path: The space; see `Space.read`.
      number: How many trials there will be, with those that the study has.
      jobs: How many to run at a time.
      minutes: No trial starts after so many.
      apply: Whether to run the best setting as an experiment, in the workspace.
      name: Of a recipe to save the best setting as; empty for none.

    Raises:
      InputError: If the space or the study cannot be used, or no trial succeeds.
    """
    deadline = time.monotonic() + 60 * minutes
    recipe = recipes.path_of_new(name) if name else None
    study = Study(Space.read(path))
    chosen = present = []
    with study.working():
        missing = number - len(study.trials())
        if missing > 0:
            outcomes = run_tasks(
                study.tasks(number),
                total=missing,
                jobs=min(jobs, missing),
                deadline=deadline,
            )
            for outcome in outcomes:
                study.finish(outcome)
        if study.is_running():
            say("Trials still run in another process, which will check the best one")
            if not study.finished():
                return
        elif study.finished():
            # Of processes that end at the same time, the others find its results.
            with process_lock(study.check_lock, "checking the best trial"):
                chosen, present = check_best(study, jobs=jobs)
        else:
            raise InputError(f"{study.path}: {study.why_none_finished()}")
    result = SearchResult(
        dataset=study.params.dataset,
        command=shlex.join(experiment_command(study.best_settings())),
        trials=study.results(),
        importances=study.importances(),
        log_scaled={key for key, r in study.space.ranges.items() if r.log},
        chosen=chosen,
        present=present,
    )
    write_search(result)
    if recipe:
        comment = (
            f"The best of {len(result.trials)} trials on {result.dataset} by "
            f"validation; {recipe.stem}.csv has all of them."
        )
        recipes.save_recipe(recipe, study.best_settings(), comment)
        write_trials(recipe.with_suffix(".csv"), result.trials)
        print(f"Wrote {recipe} and {recipe.with_suffix('.csv')}")
    if apply:
        recipes.apply_settings(study.best_settings())


def check_best(study: Study, *, jobs: int) -> tuple[list[float], list[float]]:
    """Trains the best setting, and params.yaml as it is, with new seeds.

    Returns:
      The validation accuracies of either.
    """
    seeds = range(study.params.seed + 1, study.params.seed + 1 + NUM_SEEDS)
    sides = [
        [(*side, f"seed={seed}") for seed in seeds]
        for side in (study.best_settings(), ())
    ]
    tasks = [
        Task(" ".join(settings), study.snapshot, settings, TrainingRun(settings))
        for settings in chain(*sides)
        if " ".join(settings) not in study.new_seeds
    ]
    outcomes = run_tasks(iter(tasks), total=len(tasks), jobs=jobs) if tasks else ()
    for outcome in outcomes:
        if outcome.error:
            say(f"failed: {outcome.error}")
            continue
        accuracy = outcome.task.observer.metrics["validation_accuracy"]
        study.add_new_seed(outcome.task.label, accuracy)
        say(f"{outcome.task.label}: validation accuracy {accuracy:.4f}")
    found = study.new_seeds
    chosen, present = [
        [found[key] for key in map(" ".join, side) if key in found] for side in sides
    ]
    return chosen, present
