"""Pushes DVC's run cache with all that it refers to."""

from core_mlp.pipeline.errors import InputError


def push_runs(remote: str | None = None) -> None:
    """Pushes data, run cache, and all of its outputs, by default to the default remote.

    `dvc push --run-cache` (3.67) pushes the records of all runs, but only the outputs
    of the workspace, and no metrics or plots, because these are in Git. Without them,
    another clone cannot restore a run.

    Raises:
      InputError: If there is no such remote, or it cannot be reached.
    """
    # Imported here because it takes time and no other command needs it.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            runs = repo.stage_cache.push(remote)
            used = repo.stage_cache.get_used_objs(runs, remote=remote)
            objects = set().union(*used.values())
            result = repo.cloud.push(objects, remote=remote)
    except DvcException as error:
        raise InputError(f"dvc push: {error}") from error
    if result.failed:
        raise InputError(f"dvc push: {len(result.failed)} files could not be pushed")
    print(f"Pushed {len(runs)} runs and {len(result.transferred)} files")
