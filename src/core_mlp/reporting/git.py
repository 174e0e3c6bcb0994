"""Reads revisions and experiments from Git."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from core_mlp.pipeline.errors import InputError


def run_git(*arguments: str, index: Path | None = None) -> bytes:
    """Returns what a Git command prints.

    Args:
      *arguments: The command, without "git".
      index: A file to use instead of the repository's index.

    Raises:
      InputError: If it fails, with what Git says, such as that another user owns the
        repository.
    """
    result = _git(*arguments, index=index)
    if result.returncode:
        command = arguments[2] if arguments[0] == "-C" else arguments[0]
        raise InputError(f"git {command}: {_complaint(result)}")
    return result.stdout


def resolve(revision: str) -> str:
    """Returns the commit of a revision, or of an experiment by its name.

    Raises:
      InputError: If there is none, several experiments have the name, or Git fails.
    """
    name = f"{revision}^{{commit}}"
    result = _git("rev-parse", "--verify", "--quiet", "--end-of-options", name)
    if result.returncode == 0:
        return result.stdout.decode().strip()
    # Git is quiet about a revision that does not exist, not about other problems.
    if result.stderr.strip():
        raise InputError(f"{revision}: {_complaint(result)}")
    # DVC keeps an experiment as refs/exps/BA/SELINE/NAME.
    experiments = f"refs/exps/*/*/{revision}"
    found = run_git("for-each-ref", "--format=%(objectname)", experiments).split()
    if not found:
        raise InputError(f"{revision}: no such revision or experiment")
    if len(found) > 1:
        raise InputError(f"{revision}: several experiments have this name")
    return found[0].decode()


def reader(revision: str | None) -> Callable[[str], bytes | None]:
    """Returns a function from a path to its content, or to None if there is no file.

    Paths are relative to the current folder, which need not be Git's root.

    Args:
      revision: A revision or an experiment, or None for the workspace.
    """
    if revision is None:
        return lambda path: Path(path).read_bytes() if Path(path).exists() else None
    commit = resolve(revision)

    def read(path: str) -> bytes | None:
        listing = run_git("ls-tree", "-z", commit, "--", path)
        if not listing:
            return None
        _mode, _type, digest = listing.split(b"\t")[0].split()
        return run_git("cat-file", "blob", digest.decode())

    return read


def _git(*arguments: str, index: Path | None = None) -> subprocess.CompletedProcess:
    other_index = {"GIT_INDEX_FILE": str(index)} if index else {}
    return subprocess.run(
        ["git", *arguments],
        capture_output=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"} | other_index,
    )


def _complaint(result: subprocess.CompletedProcess) -> str:
    """Returns what Git printed about a failure, as one line."""
    text = result.stderr.decode("utf-8", "replace")
    return " ".join(text.split()) or f"exit code {result.returncode}"
