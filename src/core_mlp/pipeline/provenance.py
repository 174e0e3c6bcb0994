"""Records what a stage's results were made with, so that dvc.lock can be checked.

`dvc commit` and `dvc exp save` write the present parameters and hashes into dvc.lock
without running anything. Each stage therefore writes its own record while it runs, as
one of its outputs. The parameters and dependencies in dvc.lock determine what a stage's
record must be, so the record's hash in dvc.lock tells whether the stage ran with them.
This check needs no data, only dvc.lock.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core_mlp.pipeline.files import canonical_json, write_text

FOLDER = Path("data/provenance")


def record_path(stage: str) -> Path:
    """Returns the path of a stage's record."""
    return FOLDER / f"{stage}.json"


@contextmanager
def recorded(stage: str) -> Iterator[None]:
    """Runs a stage in the block; if it succeeds, writes its record.

    The record describes the start: code and parameters may be edited during the run.
    """
    record = describe_stage(stage)
    yield
    if record:
        write_text(record_path(stage), record)


def describe_stage(stage: str) -> str | None:
    """Returns the record of a stage as of now, or None if dvc.yaml declares none.

    DVC itself reads parameters and hashes dependencies, as it does for dvc.lock.

    Args:
      stage: Its name in dvc.yaml.
    """
    # Imported here because it takes time, and reading results does not need it.
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            loaded = repo.stage.load_one(name=stage)
            if str(record_path(stage)) not in [out.def_path for out in loaded.outs]:
                return None
            loaded.save_deps()
            deps, params = {}, {}
            for dep in loaded.deps:
                if isinstance(dep, ParamsDependency):
                    params[dep.def_path] = dep.hash_info.value
                else:
                    deps[dep.def_path] = dep.hash_info.value
    # There is no DVC here, or a file is missing: the stage itself reports it.
    except DvcException:
        return None
    return _record(deps, params)


def find_contradictions(stages: Mapping[str, Any]) -> Iterator[str]:
    """Yields the stages whose results were not made with what dvc.lock says.

    Args:
      stages: `stages` of a dvc.lock. Stages without a record are not checked.
    """
    for name, stage in stages.items():
        outs = {out["path"]: out["md5"] for out in stage.get("outs", [])}
        found = outs.get(str(record_path(name)))
        deps = {dep["path"]: dep["md5"] for dep in stage.get("deps", [])}
        expected = _record(deps, stage.get("params", {}))
        if found and found != hashlib.md5(expected.encode()).hexdigest():
            yield name


def _record(deps: Mapping[str, str], params: Mapping[str, Any]) -> str:
    return canonical_json({"deps": deps, "params": params}) + "\n"
