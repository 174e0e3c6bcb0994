"""Checks that dvc.lock describes the committed code, parameters, metrics and plots.

It needs no data: what is not pulled, an output of DVC's cache that is not there, is no
change. (`dvc repro --dry --allow-missing` answers another question, and exits with 0
where the first or the last stage, a command or a metric was changed.)
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

LOCK = Path("dvc.lock")
NOT_PULLED = ("deleted", "not in cache")


def main() -> None:
    if not LOCK.exists():
        sys.exit(f"error: {LOCK} is missing; run `dvc repro` and commit it")
    stages = yaml.safe_load(Path("dvc.yaml").read_text("utf-8"))["stages"]
    params = yaml.safe_load(Path("params.yaml").read_text("utf-8"))
    try:
        locked = yaml.safe_load(LOCK.read_text("utf-8"))["stages"]
        changes = [*_differences(stages, locked), *_unused(params, stages)]
        changes = changes or list(_changes(_status(), _cached(stages)))
    # Conflict markers, half a file, or one of something else.
    except (ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError):
        sys.exit(f"error: {LOCK} is damaged; run `git checkout {LOCK}` or `dvc repro`")
    if changes:
        print("\n".join(changes))
        sys.exit(
            f"error: {LOCK} is not of this code; run `dvc repro` and commit its results"
        )
    print(f"{LOCK} describes this code, its parameters, metrics and plots")


def _differences(stages: dict, locked: dict) -> Iterator[str]:
    """Yields what dvc.yaml and dvc.lock differ in, and what dvc.lock contradicts."""
    for name in sorted(stages.keys() ^ locked.keys()):
        yield f"{name}: only in {'dvc.yaml' if name in stages else LOCK}"
    outs = {
        out["path"]: out["md5"] for stage in locked.values() for out in stage["outs"]
    }
    for name in sorted(stages.keys() & locked.keys()):
        stage, lock = stages[name], locked[name]
        if "frozen" in stage:
            yield f"{name}: frozen"
        for kind, now, then in (
            ("deps", stage["deps"], [dep["path"] for dep in lock["deps"]]),
            ("outs", _out_paths(stage), [out["path"] for out in lock["outs"]]),
            (
                "params",
                stage.get("params", []),
                lock.get("params", {}).get("params.yaml", {}),
            ),
        ):
            for item in sorted(set(now) ^ set(then)):
                where = "dvc.yaml" if item in now else LOCK
                yield f"{name}: {kind}: {item}: only in {where}"
        for dep in lock["deps"]:
            if outs.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield f"{name}: deps: {dep['path']}: is not what its stage gave"


def _unused(params: dict, stages: dict) -> Iterator[str]:
    """Yields the parameters that no stage reads."""
    used = {key for stage in stages.values() for key in stage.get("params", [])}
    for key in sorted(params.keys() - used):
        yield f"params.yaml: {key}: of no stage in dvc.yaml"


def _out_paths(stage: dict) -> dict[str, dict]:
    """Returns the outputs of a stage with their options."""
    outs = [out if isinstance(out, dict) else {out: {}} for out in stage["outs"]]
    return {path: options for out in outs for path, options in out.items()}


def _cached(stages: dict) -> set[str]:
    """Returns the outputs that are in DVC's cache; the others are in Git."""
    return {
        path
        for stage in stages.values()
        for path, options in _out_paths(stage).items()
        if options.get("cache", True)
    }


def _status() -> dict:
    command = ["dvc", "status", "--json"]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    if result.returncode:
        sys.exit(f"error: dvc status: {' '.join(result.stderr.split())}")
    return json.loads(result.stdout)


def _changes(status: dict, cached: set[str]) -> Iterator[str]:
    """Yields each change that is more than an output that was not pulled."""
    for stage, items in status.items():
        for item in items:
            if not isinstance(item, dict):
                yield f"{stage}: {item}"
                continue
            for kind, paths in item.items():
                for path, state in paths.items():
                    if path not in cached or state not in NOT_PULLED:
                        yield f"{stage}: {kind}: {path}: {state}"


if __name__ == "__main__":
    main()
