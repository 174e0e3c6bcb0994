"""Resumable training state, saved after each epoch."""

import hashlib
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import platformdirs
import tensorflow as tf

from core_mlp.pipeline.environment import SETTINGS
from core_mlp.pipeline.files import atomic_output, process_lock
from core_mlp.pipeline.metadata import Metadata
from core_mlp.pipeline.params import TrainParams
from core_mlp.results.train import EpochResult


def describe_run(
    p: TrainParams, inputs: Sequence[Metadata], device: str, stage: Path
) -> dict[str, str]:
    """Returns a hash of each thing that determines the result of a training run.

    These are the parameters, the data, TensorFlow and its settings, the device, the
    project code that this process has imported, and the processor.

    Args:
      p: The parameters of train.
      inputs: Metadata of the splits that train reads.
      device: Name of the training device.
      stage: The stage's own file.
    """
    cpuinfo = Path("/proc/cpuinfo")
    processor = cpuinfo.read_text().split("\n\n")[0] if cpuinfo.exists() else ""
    # Includes those known to be harmless: here, caution costs nothing.
    settings = {k: v for k, v in os.environ.items() if k.startswith(SETTINGS)}
    # Says only who trains and where; results do not depend on it.
    settings.pop("TF_CONFIG", None)
    texts = {
        "parameters": [p.model_dump_json()],
        "data": [info.model_dump_json() for info in inputs],
        "TensorFlow": [tf.__version__],
        "environment": [f"{k}={v}" for k, v in sorted(settings.items())],
        "device": [device, *map(str, tf.config.list_physical_devices())],
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
def exclusive_state(key: Iterable[str]) -> Iterator[Path]:
    """Locks the saved state of a training run; deletes it if the block succeeds.

    The state is in `$CORE_MLP_STATE_DIR`, by default the user's folder for such files:
    outside the repository, so that every copy of it can resume the run. Its name is a
    hash of `key`, everything that determines it.

    Yields:
      The path of the state, which exists if the run was interrupted.
    """
    default = platformdirs.user_state_path("core_mlp")
    folder = os.environ.get("CORE_MLP_STATE_DIR") or default
    path = Path(folder, f"{hash_texts(key)}.npz").expanduser()
    with process_lock(path.with_suffix(".lock"), "training the same model"):
        yield path
        path.unlink(missing_ok=True)


def save_state(
    path: Path, modules: Sequence[tf.Module], history: Sequence[EpochResult]
) -> None:
    """Saves the results of the epochs, and the variables of all modules, as .npz."""
    arrays = [np.array(history)]
    arrays += [variable.numpy() for variable in all_variables(modules)]
    with atomic_output(path) as partial:
        np.savez(partial, *arrays)


def restore_state(path: Path, modules: Sequence[tf.Module]) -> list[EpochResult]:
    """Restores the saved state of a training run, if it exists and is intact.

    Returns:
      The results of the epochs so far; empty if training has to start from scratch.
    """
    variables = all_variables(modules)
    try:
        with zipfile.ZipFile(path) as file:
            # NumPy stops reading before the checksum at the end.
            if name := file.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {name}")
        with np.load(path) as arrays:
            history = arrays["arr_0"]
            values = [arrays[f"arr_{n}"] for n in range(1, len(variables) + 1)]
        for variable, value in zip(variables, values, strict=True):
            if variable.shape != value.shape:
                raise ValueError("the variables have other shapes")
    except FileNotFoundError:
        return []
    # For a corrupt file, zipfile and NumPy raise many kinds of errors.
    except Exception as error:
        print(f"{path}: corrupt, training restarts from scratch: {error}", flush=True)
        return []
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    print(f"Resuming after epoch {len(history)}, from {path}", flush=True)
    return results_of(history)


def all_variables(modules: Sequence[tf.Module]) -> list[tf.Variable]:
    """Returns the variables of all modules, in a fixed order."""
    return [variable for module in modules for variable in module.variables]


def results_of(rows: np.ndarray) -> list[EpochResult]:
    """Converts an array with a row per epoch to results."""
    return [EpochResult(int(epoch), *others) for epoch, *others in rows.tolist()]
