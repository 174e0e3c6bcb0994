"""Runs an experiment for each combination of parameters, and ranks them."""

from collections.abc import Sequence

from core_mlp.experiments.copies import Snapshot
from core_mlp.experiments.runner import Task, require_all, run_experiments, say
from core_mlp.pipeline.errors import InputError
from core_mlp.reporting import sweep
from core_mlp.reporting.runs import read_run


def run_sweep(settings: Sequence[str], *, jobs: int = 1) -> None:
    """Runs the combinations of parameters in copies of the workspace.

    May be interrupted: it goes on from the experiments it has run. In the end, the
    ranking by validation is printed and written as report.md and report.html.

    Args:
      settings: As for `dvc exp run -S`, such as "learning_rate=0.001,0.003".
      jobs: How many to run at a time.

    Raises:
      InputError: If there is nothing to vary, or an experiment fails; the others are
        ranked all the same.
    """
    snapshot = Snapshot.take(None)
    tasks = [Task(", ".join(c), snapshot, tuple(c)) for c in combinations(settings)]
    say(f"{len(tasks)} experiments")
    # Their results show by how much seeds vary, if they are of one of the settings.
    runs = [read_run("HEAD")]
    try:
        for outcome in require_all(run_experiments(tasks, jobs=jobs)):
            runs.append(outcome.run)
            accuracy = outcome.run.metrics["validation_accuracy"]
            say(f"{outcome.task.label}: validation accuracy {accuracy:.4f}")
    finally:
        sweep.write_ranking(runs)


def combinations(settings: Sequence[str]) -> list[list[str]]:
    """Returns each combination of values, as DVC understands them.

    >>> combinations(["epochs=1,2", "seed=3"])
    [['epochs=1', 'seed=3'], ['epochs=2', 'seed=3']]

    Raises:
      InputError: If a setting is not KEY=VALUE, or nothing varies.
    """
    # Imported here because it takes a second that no other command needs.
    from dvc.utils.hydra import get_hydra_sweeps

    try:
        found = get_hydra_sweeps({"params.yaml": list(settings)})
    # Hydra's parser raises errors of its own.
    except Exception as error:
        raise InputError(f"-S {' '.join(settings)}: {error}") from error
    combined = [combination["params.yaml"] for combination in found]
    if len(combined) < 2:
        raise InputError(
            f"-S {' '.join(settings)}: nothing to sweep: give a parameter several "
            "values, such as -S learning_rate=0.001,0.003"
        )
    return combined
