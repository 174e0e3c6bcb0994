"""Tells whether a change left the bytes of every output alone."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from core_mlp.pipeline.errors import InputError, first_line
from core_mlp.pipeline.files import parse_yaml
from core_mlp.reporting.git import reader


def compare_outputs(base: str) -> None:
    """Compares the outputs of the workspace with those of a revision, file by file.

    Runs what is out of date first. A folder is compared file by file if DVC's cache has
    its listing, and otherwise as a whole.

    Raises:
      InputError: If an output differs or is missing, or the pipeline fails.
    """
    old_lock = reader(base)("dvc.lock")
    if old_lock is None:
        raise InputError(f"{base}: dvc.lock is missing")
    cache = find_cache()
    old = _read_lock(base, old_lock, cache)
    if subprocess.run(["dvc", "repro", "--quiet"], check=False).returncode:
        raise InputError("dvc repro failed")
    new = _read_lock("workspace", Path("dvc.lock").read_bytes(), cache)
    moved = {md5: path for path, md5 in new.items() if path not in old}
    num_same = 0
    problems = []
    for path, md5 in old.items():
        if new.get(path) == md5:
            num_same += 1
        elif md5 in moved and path not in new:
            print(f"moved: {path} -> {moved.pop(md5)}")
        else:
            problems.append(f"{'differs' if path in new else 'missing'}: {path}")
    problems_and_new = [*problems, *(f"new: {path}" for path in moved.values())]
    print(*problems_and_new, f"same: {num_same} outputs", sep="\n")
    if problems:
        raise InputError(f"{len(problems)} of {len(old)} outputs differ from {base}")


def find_cache() -> Path:
    """Returns the folder of DVC's cache, which several clones may share."""
    # Imported here because no other command needs the time that it takes.
    from dvc.repo import Repo

    with Repo() as repo:
        return Path(repo.cache.local.path)


def _read_lock(name: str, lock: bytes, cache: Path) -> dict[str, str]:
    """Returns the MD5 of each file by its path."""
    try:
        return dict(_files(lock, cache))
    # Conflict markers, another schema, half a file: the parser may raise anything.
    except Exception as error:
        raise InputError(f"{name}: dvc.lock is corrupt: {first_line(error)}") from error


def _files(lock: bytes, cache: Path) -> Iterator[tuple[str, str]]:
    """Yields path and MD5 of each output, and of each file of a folder."""
    for stage in parse_yaml(lock)["stages"].values():
        for out in stage["outs"]:
            md5 = out["md5"]
            listing = cache / md5[:2] / md5[2:]
            if md5.endswith(".dir") and listing.exists():
                for file in json.loads(listing.read_bytes()):
                    yield f"{out['path']}/{file['relpath']}", file["md5"]
            else:
                yield out["path"], md5
