"""Checks that the outputs of the data stages are the ones that are committed.

Compares dvc.lock as a run has left it with dvc.lock in Git's HEAD. The weights are
promised to be the same on the same kind of machine only; a difference there is shown.
"""

import subprocess
import sys
from pathlib import Path

import yaml

DATA_STAGES = ("fetch", "preprocess")


def main() -> None:
    committed = yaml.safe_load(
        subprocess.run(
            ["git", "show", "HEAD:dvc.lock"], stdout=subprocess.PIPE, check=True
        ).stdout
    )
    present = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))
    differs = False
    for stage in present["stages"]:
        old, new = (_hashes(lock, stage) for lock in (committed, present))
        if old == new:
            print(f"{stage}: as committed")
            continue
        for path in sorted(old.keys() | new.keys()):
            if old.get(path) != new.get(path):
                print(f"{stage}: {path}: {old.get(path)} -> {new.get(path)}")
        differs |= stage in DATA_STAGES
    if differs:
        sys.exit("error: the data stages gave other bytes than the committed dvc.lock")


def _hashes(lock: dict, stage: str) -> dict[str, str]:
    """Returns the hash of each output of a stage."""
    outs = lock["stages"].get(stage, {}).get("outs", [])
    return {out["path"]: out["md5"] for out in outs}


if __name__ == "__main__":
    main()
