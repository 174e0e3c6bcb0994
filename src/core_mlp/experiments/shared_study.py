"""A study of Optuna in a file that several processes share."""

import glob
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend, JournalStorage

from core_mlp.experiments.runner import changed_inputs
from core_mlp.pipeline.errors import InputError, first_line

# Of changed files in a message.
MAX_NAMES = 3


class KernelLock:
    """Lock of a study's file, which the kernel releases if a process is killed.

    After a kill, Optuna's own would keep others waiting for half a minute.
    """

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(path)

    def acquire(self) -> bool:
        """Waits for the lock."""
        self._lock.acquire()
        return True

    def release(self) -> None:
        """Lets others have it."""
        self._lock.release()


def open_study(path: Path, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    """Opens the study in a file, or starts it; it maximizes.

    Raises:
      InputError: If the file is corrupt.
    """
    try:
        file_lock = KernelLock(Path(f"{path}.lock"))
        storage = JournalStorage(JournalFileBackend(str(path), file_lock))
        return optuna.create_study(
            storage=storage,
            study_name="search",
            direction="maximize",
            load_if_exists=True,
            pruner=pruner,
        )
    except OSError:
        raise  # It is not the content.
    # The parser raises errors of many types.
    except Exception as error:
        problem = f"corrupt: {first_line(error)}; delete it to start over"
        raise InputError(f"{path}: {problem}") from error


def check_origin(
    study: optuna.Study, path: Path, origin: Mapping[str, Any], tree: str
) -> None:
    """Checks what the trials of a study belong to; a new study records it.

    Args:
      study: The study.
      path: Its file.
      origin: What has to be the same, by what an error calls it.
      tree: Git's tree of the workspace, to find what has changed.

    Raises:
      InputError: If something is not the same.
    """
    known = study.user_attrs.get("origin", origin)
    for name, value in origin.items():
        if known[name] != value:
            raise InputError(
                f"{path}: its trials are of another {name}{_changes(study, tree)}: "
                "restore that, delete the file, or copy the space to a new name"
            )
    study.set_user_attr("origin", origin)
    study.set_user_attr("tree", tree)


def _changes(study: optuna.Study, tree: str) -> str:
    """Returns the files that have changed since the last search, in brackets."""
    with suppress(InputError):  # Git may have deleted the old ones.
        if names := changed_inputs(study.user_attrs.get("tree", ""), tree):
            return f" ({', '.join(names[:MAX_NAMES])})"
    return ""


class Workers:
    """The processes that run trials of a study.

    Each holds a lock while it does, so that others see whether it still lives.

    Attributes:
      own: The name of this process.
    """

    def __init__(self, path: Path) -> None:
        """Names this process, for the study in a file."""
        self.own = uuid4().hex
        self._path = path

    @contextmanager
    def present(self) -> Iterator[None]:
        """Holds the lock of this process."""
        name = glob.escape(self._path.name)
        for path in self._path.parent.glob(f"{name}.*.worker.lock"):
            _delete_if_free(FileLock(path))
        lock = self._lock_of(self.own)
        with lock:
            try:
                yield
            finally:
                Path(lock.lock_file).unlink(missing_ok=True)

    def has_ended(self, name: str) -> bool:
        """Returns whether the process of that name has ended."""
        return _delete_if_free(self._lock_of(name))

    def _lock_of(self, name: str) -> FileLock:
        return FileLock(f"{self._path}.{name}.worker.lock")


def _delete_if_free(lock: FileLock) -> bool:
    """Deletes a lock file unless a process holds it; returns whether none does."""
    try:
        with lock.acquire(timeout=0):
            Path(lock.lock_file).unlink()
    except Timeout:
        return False
    return True
