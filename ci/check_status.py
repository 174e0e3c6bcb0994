"""Checks that dvc.lock describes the committed code, parameters, metrics and plots.

It needs no data: what is not pulled, an output that Git does not track and that is not
there, is no change. (`dvc repro --dry --allow-missing` answers another question, and
exits with 0 where the first or the last stage, a command or a metric was changed.)
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
    lock = yaml.safe_load(LOCK.read_text("utf-8"))
    cached = {
        out["path"]
        for stage in lock["stages"].values()
        for out in stage.get("outs", [])
        if not _print("git", "ls-files", "--", out["path"])
    }
    changes = list(_changes(json.loads(_print("dvc", "status", "--json")), cached))
    unknown = (
        lock["stages"].keys() - yaml.safe_load(Path("dvc.yaml").read_text())["stages"]
    )
    changes += [f"{stage}: not in dvc.yaml" for stage in sorted(unknown)]
    if changes:
        print("\n".join(changes))
        sys.exit(
            f"error: {LOCK} is not of this code; run `dvc repro` and commit its results"
        )
    print(f"{LOCK} describes this code, its parameters, metrics and plots")


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


def _print(*command: str) -> str:
    return subprocess.run(
        command, stdout=subprocess.PIPE, encoding="utf-8", check=True
    ).stdout


if __name__ == "__main__":
    main()
