"""Checks dvc.lock in CI.

    python .ci/check_lock.py [--after-run]

Before a run, dvc.lock must describe the committed code, parameters, metrics and plots.
This needs no data: an output that was not pulled does not count as a change. After a
run, the data stages must have given the committed bytes; other changes are only
printed, since the weights may differ between machines.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

LOCK = Path("dvc.lock")
DATA_STAGES = ("fetch", "preprocess")
NOT_PULLED = ("deleted", "not in cache")


def check_status() -> None:
    """Exits with an error if dvc.lock is out of date or contradicts itself."""
    try:
        stages = yaml.safe_load(LOCK.read_text("utf-8"))["stages"]
        outs = {o["path"]: o["md5"] for stage in stages.values() for o in stage["outs"]}
        command = ["dvc", "status", "--json"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        status = json.loads(result.stdout)
        changes = [*_contradictions(stages, outs), *_changes(status, outs)]
    except FileNotFoundError:
        sys.exit(f"error: {LOCK} is missing; run `dvc repro` and commit it")
    # Conflict markers, or half a file.
    except (ValueError, TypeError, LookupError, AttributeError, yaml.YAMLError):
        sys.exit(f"error: {LOCK} is corrupt; run `git checkout {LOCK}` or `dvc repro`")
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: dvc status: {' '.join(error.stderr.split())}")
    if changes:
        print("\n".join(changes))
        sys.exit(
            f"error: {LOCK} is out of date; run `dvc repro` and commit the results"
        )
    print(f"{LOCK} matches the code, parameters, metrics and plots")


def _contradictions(stages: dict, outs: dict) -> Iterator[str]:
    """Yields inputs that differ from the output of their stage, as after a bad merge.

    `dvc status` does not see them where the data has not been pulled.
    """
    for name, stage in stages.items():
        for dep in stage["deps"]:
            if outs.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield f"{name}: deps: {dep['path']}: not the output of its stage"


def _changes(status: dict, outs: dict) -> Iterator[str]:
    """Yields each change, except for known outputs that were not pulled."""
    for stage, items in status.items():
        for item in items:
            if not isinstance(item, dict):
                yield f"{stage}: {item}"
                continue
            for kind, paths in item.items():
                for path, state in paths.items():
                    is_cached = path in outs and path.startswith(("data/", "models/"))
                    if not is_cached or state not in NOT_PULLED:
                        yield f"{stage}: {kind}: {path}: {state}"


def check_data() -> None:
    """Exits with an error if a data stage gave other bytes than in Git's HEAD."""
    # "./" makes it relative to this folder, which may be part of a larger repository.
    command = ["git", "show", f"HEAD:./{LOCK}"]
    committed = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    old = _outputs(committed)
    new = _outputs(LOCK.read_bytes())
    changed = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
    for stage, path in sorted(changed):
        md5s = f"{old.get((stage, path))} -> {new.get((stage, path))}"
        print(f"{stage}: {path}: {md5s}")
    if any(stage in DATA_STAGES for stage, _ in changed):
        sys.exit(f"error: the data stages gave other bytes than the committed {LOCK}")
    print(f"The data stages gave the bytes in {LOCK}")


def _outputs(lock: bytes) -> dict[tuple[str, str], str]:
    """Returns the MD5 of each output, by stage and path."""
    return {
        (name, out["path"]): out["md5"]
        for name, stage in yaml.safe_load(lock)["stages"].items()
        for out in stage.get("outs", [])
    }


if __name__ == "__main__":
    if "--after-run" in sys.argv:
        check_data()
    else:
        check_status()
