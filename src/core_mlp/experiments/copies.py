"""Copies of the repository that experiments run in, several at a time.

Experiments in one folder exclude each other by DVC's locks. Clones that share a cache
do not, and they leave the workspace alone.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from filelock import FileLock, Timeout

from core_mlp.pipeline.environment import SOURCE
from core_mlp.pipeline.errors import InputError
from core_mlp.reporting.git import resolve, run_git

COPIES = Path(".dvc/tmp/copies")
# How DVC brings files from the cache into a copy, unless the user has chosen: the first
# way that the file system knows. Linked pictures take no space, and less time.
LINKS = ["reflink", "hardlink", "copy"]
LOCK_NAME = "copy.lock"
# Who makes an experiment's commit, if the user has not told Git, as on a CI machine.
IDENTITY = {"user.name": "core-mlp", "user.email": "core-mlp@localhost"}


class Snapshot(NamedTuple):
    """The files that an experiment starts with.

    Attributes:
      commit: The experiment's baseline.
      tree: Git's tree of all files: those of the commit, with uncommitted changes.
    """

    commit: str
    tree: str

    @classmethod
    def take(cls, revision: str | None) -> Self:
        """Returns the files of a revision, or of the workspace as it is now.

        The workspace includes changes that are not committed and new files, but no
        files that Git ignores.

        Raises:
          InputError: If there is no such revision, or data is in neither Git nor DVC.
        """
        if revision is not None:
            commit = resolve(revision)
            tree = run_git("rev-parse", f"{commit}^{{tree}}").decode().strip()
            return cls(commit, tree)
        new = run_git("ls-files", "--others", "--exclude-standard", "-z")
        _check_data(new.decode("utf-8", "replace").split("\0"))
        # Another index, so that the user's own stays as it is.
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder, "index")
            own = Path(run_git("rev-parse", "--git-path", "index").decode().strip())
            if own.exists():
                shutil.copy2(own, index)
            run_git("add", "--all", ".", index=index)
            tree = run_git("write-tree", index=index).decode().strip()
        return cls(resolve("HEAD"), tree)


def _check_data(new_files: Sequence[str]) -> None:
    """Raises InputError about data that only DVC should keep; Git would store it."""
    for name in new_files:
        path = Path(name)
        is_of_dvc = path.suffix == ".dvc" or path.name == ".gitignore"
        if path.is_relative_to(SOURCE) and not is_of_dvc:
            raise InputError(
                f"{name}: is in neither Git nor DVC, so copies of the project lack it: "
                f"run `dvc add` on its folder in {SOURCE}"
            )


class Copy(NamedTuple):
    """A clone of the repository with the same DVC cache.

    Attributes:
      root: Its folder.
      project: The folder in it that has dvc.yaml.
    """

    root: Path
    project: Path

    def reset(self, snapshot: Snapshot) -> None:
        """Makes its files those of a snapshot; outputs of DVC stay."""
        git = ("-C", str(self.root))
        run_git(*git, "checkout", "--quiet", "--force", "--detach", snapshot.commit)
        run_git(*git, "read-tree", "-u", "--reset", snapshot.tree)

    def send_experiment(self, name: str) -> bool:
        """Fetches an experiment from the copy; returns whether it was there."""
        pattern = f"refs/exps/*/*/{name}"
        found = run_git(
            "-C", str(self.root), "for-each-ref", "--format=%(refname)", pattern
        )
        for ref in found.decode().split():
            run_git(
                "fetch", "--quiet", "--no-tags", "--no-write-fetch-head",
                str(self.root), f"+{ref}:{ref}",
            )  # fmt: skip
        return bool(found)


@contextmanager
def make_copies(number: int) -> Iterator[list[Copy]]:
    """Clones the repository a number of times; deletes the clones in the end.

    Copies that were left by a process that was killed are deleted first.

    Raises:
      InputError: If the repository cannot be cloned.
    """
    # Imported here because it takes a second that no other command needs.
    from dvc.repo import Repo

    COPIES.mkdir(parents=True, exist_ok=True)
    _delete_abandoned()
    with Repo() as repo:
        cache = {
            "dir": str(Path(repo.cache.local_cache_dir).resolve()),
            "type": ",".join(repo.config["cache"].get("type") or LINKS),
        }
    hidden = Path(tempfile.mkdtemp(prefix="new-", dir=COPIES))
    with FileLock(hidden / LOCK_NAME):
        # `_delete_abandoned` in another process must not see it before it is locked.
        folder = hidden.rename(COPIES / hidden.name.replace("new-", "run-"))
        try:
            yield [_clone(folder / str(n), cache) for n in range(number)]
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _delete_abandoned() -> None:
    """Deletes the copies of runners that were killed."""
    for folder in COPIES.glob("run-*"):
        try:
            with FileLock(folder / LOCK_NAME, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (Timeout, OSError):
            pass  # In use, or just deleted by another process.


def _clone(folder: Path, cache: dict[str, str]) -> Copy:
    """Clones the repository; `cache` has the settings of DVC's cache in the clone."""
    from dvc.config import Config

    top = Path(run_git("rev-parse", "--show-toplevel").decode().strip())
    # Its objects stay where they are, so that this takes no time or space.
    run_git("clone", "--quiet", "--shared", "--no-checkout", str(top), str(folder))
    for key, default in IDENTITY.items():
        value = subprocess.run(
            ["git", "config", key], capture_output=True, text=True, check=False
        ).stdout.strip()
        run_git("-C", str(folder), "config", key, value or default)
    project = folder / Path.cwd().resolve().relative_to(top.resolve())
    # For the folder of DVC's settings.
    run_git("-C", str(folder), "checkout", "--quiet", "--detach", "HEAD")
    dvc_folder = project / ".dvc"
    local = Path(".dvc/config.local")
    if local.exists():
        shutil.copy2(local, dvc_folder)
    with Config(str(dvc_folder), validate=False).edit("local") as settings:
        settings.setdefault("cache", {}).update(cache)
    return Copy(folder, project)
