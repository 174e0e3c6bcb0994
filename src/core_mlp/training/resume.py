"""Training state: saved after each epoch, and kept for runs of more epochs."""

import hashlib
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import platformdirs
import tensorflow as tf

from core_mlp.pipeline.environment import SETTINGS, used_lock
from core_mlp.pipeline.files import atomic_output, process_lock
from core_mlp.pipeline.metadata import Metadata
from core_mlp.pipeline.params import TrainParams
from core_mlp.results.train import EpochResult
from core_mlp.training.threads import num_threads

# Subfolder for the states of finished runs, and how much it may hold: about 90 runs of
# the default network, of 11 MB each.
FINISHED = "finished"
FINISHED_BYTES = 2**30


def describe_run(
    p: TrainParams, inputs: Sequence[Metadata], device: str, stage: Path
) -> dict[str, str]:
    """Returns a hash of each thing that determines the result of a training run.

    These are the parameters, the data, TensorFlow and its settings, the locked
    packages, the device, the project code that this process has imported, and the
    processor. The number of epochs is separate from the other parameters.

    Args:
      p: The parameters of train.
      inputs: Metadata of the splits that train reads.
      device: Name of the training device.
      stage: The stage's own file.
    """
    cpuinfo = Path("/proc/cpuinfo")
    processor = cpuinfo.read_text().split("\n\n")[0] if cpuinfo.exists() else ""
    lock = used_lock()
    packages = [lock.read_text("utf-8", "replace")] if lock and lock.exists() else []
    # Includes those known to be harmless: here, caution costs nothing.
    settings = {k: v for k, v in os.environ.items() if k.startswith(SETTINGS)}
    # Says only who trains and where; results do not depend on it.
    settings.pop("TF_CONFIG", None)
    texts = {
        "parameters": [p.model_dump_json(exclude={"epochs"})],
        "epochs": [str(p.epochs)],
        "data": [info.model_dump_json() for info in inputs],
        "TensorFlow": [tf.__version__],
        "packages": packages,
        "environment": [f"{k}={v}" for k, v in sorted(settings.items())],
        "device": [
            device,
            *map(str, tf.config.list_physical_devices()),
            str(num_threads()),
        ],
        "code": [path.read_text("utf-8") for path in [stage, *imported_modules()]],
        "processor": [re.sub(r"(?im)^(cpu MHz|bogomips|microcode).*$", "", processor)],
    }
    return {name: hash_texts(parts) for name, parts in texts.items()}


def imported_modules() -> list[Path]:
    """Returns the files of this package that this process has imported, sorted."""
    names = [name for name in sys.modules if name.split(".")[0] == "core_mlp"]
    files = [getattr(sys.modules[name], "__file__", None) for name in names]
    return sorted(Path(file) for file in files if file)


def hash_texts(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


@contextmanager
def exclusive_state(
    run: Mapping[str, str], worker: Iterable[str], num_epochs: int
) -> Iterator[Path]:
    """Locks the saved state of a training run; deletes it if the block succeeds.

    The state is in `$CORE_MLP_STATE_DIR`, by default the user's folder for such files:
    outside the repository, so that every copy of it can resume the run. It is called
    HASH.EPOCHS.npz, with a hash of everything else that determines it.

    Args:
      run: What determines the result, from `describe_run`.
      worker: What identifies this process among those that train together.
      num_epochs: Epochs of the whole run.

    Yields:
      The path of the state, which exists if the run was interrupted.
    """
    default = platformdirs.user_state_path("core_mlp")
    folder = Path(os.environ.get("CORE_MLP_STATE_DIR") or default).expanduser()
    key = [digest for name, digest in run.items() if name != "epochs"]
    path = folder / f"{hash_texts([*key, *worker])}.{num_epochs}.npz"
    with process_lock(path.with_suffix(".lock"), "training the same model"):
        yield path
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            problem = f"{path}: cannot be deleted: {error.strerror or error}"
            print(f"{problem}: until it is, this run is not repeated", flush=True)


def save_state(
    path: Path, modules: Sequence[tf.Module], history: Sequence[EpochResult]
) -> None:
    """Saves the results of the epochs, and the variables of all modules, as .npz."""
    arrays = [np.array(history)]
    arrays += [variable.numpy() for variable in all_variables(modules)]
    with atomic_output(path) as partial:
        np.savez(partial, *arrays)


def keep_state(
    path: Path, modules: Sequence[tf.Module], history: Sequence[EpochResult]
) -> None:
    """Keeps the state of a finished run, from which one of more epochs can go on.

    This takes a rename, unless no epoch was left to train. To limit the total size, the
    states that were not used for the longest time are deleted, and a state that exceeds
    the limit is not kept. An error is only printed: the run itself has succeeded.
    """
    finished = path.parent / FINISHED / path.name
    try:
        if not path.exists():
            save_state(path, modules, history)
        if path.stat().st_size <= FINISHED_BYTES:
            finished.parent.mkdir(exist_ok=True)
            path.replace(finished)
            delete_least_recently_used(finished.parent, FINISHED_BYTES)
    except OSError as error:
        problem = f"{finished}: cannot be kept: {error.strerror or error}"
        print(f"{problem}: a run of more epochs starts from scratch", flush=True)


def delete_least_recently_used(folder: Path, limit: int) -> None:
    """Deletes states until those that are left have at most `limit` bytes in total."""
    found = {}
    for path in folder.glob("*.npz"):
        with suppress(FileNotFoundError):  # Another process deletes states, too.
            found[path] = path.stat()
    total = sum(status.st_size for status in found.values())
    for path in sorted(found, key=lambda path: found[path].st_mtime_ns):
        if total <= limit:
            break
        path.unlink(missing_ok=True)
        total -= found[path].st_size


def restore_state(path: Path, modules: Sequence[tf.Module]) -> list[EpochResult]:
    """Restores the state of an interrupted run, or else of a shorter finished one.

    Args:
      path: The state of this run, from `exclusive_state`; it need not exist.
      modules: The modules to restore.

    Returns:
      The results of the epochs so far; empty if training has to start from scratch.
    """
    if history := read_state(path, modules):
        print(f"Resuming after epoch {len(history)}, from {path}", flush=True)
        return history
    for finished in shorter_states(path):
        if history := read_state(finished, modules):
            print(f"Continuing after epoch {len(history)}, from {finished}", flush=True)
            with suppress(OSError):  # It may have been deleted, or be read-only.
                os.utime(finished)  # It is now the most recently used.
            return history
    return []


def shorter_states(path: Path) -> list[Path]:
    """Returns states of finished runs that differ from this one in having fewer epochs.

    There are none if this run itself has finished before: when it is repeated, every
    epoch is, so that its results are checked as a whole.

    Args:
      path: The state of this run, from `exclusive_state`.

    Returns:
      Those with the most epochs first.
    """
    folder = path.parent / FINISHED
    if (folder / path.name).exists():
        return []
    run, num_epochs = path.stem.split(".")
    found = {}
    for finished in folder.glob(f"{run}.*.npz"):
        number = finished.stem.removeprefix(f"{run}.")
        if number.isdecimal() and int(number) < int(num_epochs):
            found[int(number)] = finished
    return [found[number] for number in sorted(found, reverse=True)]


def read_state(path: Path, modules: Sequence[tf.Module]) -> list[EpochResult]:
    """Reads a state into the variables of the modules, if it exists and is intact.

    Returns:
      The results of its epochs; empty if it cannot be used.
    """
    variables = all_variables(modules)
    try:
        # Opened only once: it may be deleted or replaced meanwhile.
        with path.open("rb") as file:
            with zipfile.ZipFile(file) as archive:
                # NumPy stops reading before the checksum at the end.
                if name := archive.testzip():
                    raise zipfile.BadZipFile(f"wrong checksum of {name}")
            file.seek(0)
            with np.load(file) as arrays:
                history = arrays["arr_0"]
                values = [arrays[f"arr_{n}"] for n in range(1, len(variables) + 1)]
        for variable, value in zip(variables, values, strict=True):
            if variable.shape != value.shape:
                raise ValueError("the variables have other shapes")
    except FileNotFoundError:
        return []
    # For a corrupt file, zipfile and NumPy raise many kinds of errors.
    except Exception as error:
        print(f"{path}: corrupt, training does not use it: {error}", flush=True)
        return []
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return results_of(history)


def all_variables(modules: Sequence[tf.Module]) -> list[tf.Variable]:
    """Returns the variables of all modules, in a fixed order."""
    return [variable for module in modules for variable in module.variables]


def results_of(rows: np.ndarray) -> list[EpochResult]:
    """Converts an array with a row per epoch to results."""
    return [EpochResult(int(epoch), *others) for epoch, *others in rows.tolist()]
