"""Resumable training state, saved after each epoch."""

import hashlib
import os
import re
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
from core_mlp.training.loop import EpochMetrics

PACKAGE = Path(__file__).parents[1]


def run_facts(
    train_params: TrainParams, inputs: Sequence[Metadata], device: str, stage: Path
) -> dict[str, str]:
    """Returns hashes of everything that determines the result of a training run.

    These are parameters, data, TensorFlow and its settings, device, the code of this
    package and of the stage, and processor.
    """
    cpuinfo = Path("/proc/cpuinfo")
    processor = cpuinfo.read_text().split("\n\n")[0] if cpuinfo.exists() else ""
    # Also those known to be harmless: here, caution costs nothing.
    settings = {k: v for k, v in os.environ.items() if k.startswith(SETTINGS)}
    settings.pop("TF_CONFIG", None)  # It says only who trains, and where.
    # Not hidden files, such as an editor's lock, which may be a link to nothing.
    modules = [path for path in PACKAGE.rglob("[!.]*.py") if path.is_file()]
    code = [path.read_text("utf-8") for path in [stage, *sorted(modules)]]
    facts = {
        "parameters": [train_params.model_dump_json()],
        "data": [info.model_dump_json() for info in inputs],
        "TensorFlow": [tf.__version__],
        "environment": [f"{k}={v}" for k, v in sorted(settings.items())],
        "device": [device, *map(str, tf.config.list_physical_devices())],
        "code": code,
        "processor": [re.sub(r"(?im)^(cpu MHz|bogomips|microcode).*$", "", processor)],
    }
    return {name: hash_texts(texts) for name, texts in facts.items()}


def hash_texts(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:32]


@contextmanager
def exclusive_state(facts: Iterable[str]) -> Iterator[Path]:
    """Locks the saved state of a training run; deletes it if the block succeeds.

    The state is in `$CORE_MLP_STATE_DIR`, by default the user's folder for such files:
    outside the repository, so that every copy of it can resume the run. Its name is a
    hash of `facts`, everything that determines it.

    Yields:
      The path of the state, which exists if the run was interrupted.
    """
    default = platformdirs.user_state_path("core_mlp")
    folder = os.environ.get("CORE_MLP_STATE_DIR") or default
    path = Path(folder, f"{hash_texts(facts)}.npz").expanduser()
    with process_lock(path.with_suffix(".lock"), "training the same model"):
        yield path
        path.unlink(missing_ok=True)


def save_state(
    path: Path, modules: Sequence[tf.Module], history: Sequence[EpochMetrics]
) -> None:
    """Saves the variables of model, optimizer and so on, and the metrics, as .npz."""
    variables = [variable for module in modules for variable in module.variables]
    arrays = [np.array(history), *(variable.numpy() for variable in variables)]
    with atomic_output(path) as partial:
        np.savez(partial, *arrays)


def restore_state(path: Path, modules: Sequence[tf.Module]) -> list[EpochMetrics]:
    """Restores the saved state of a training run, if it exists and is intact.

    Returns:
      The metrics of the epochs so far; empty if training has to start from scratch.
    """
    variables = [variable for module in modules for variable in module.variables]
    try:
        with zipfile.ZipFile(path) as file:
            # NumPy stops before the checksum, which is at the end.
            if name := file.testzip():
                raise zipfile.BadZipFile(f"wrong checksum of {name}")
        with np.load(path) as arrays:
            history, *values = (arrays[f"arr_{n}"] for n in range(len(variables) + 1))
        if any(v.shape != w.shape for v, w in zip(values, variables, strict=True)):
            raise ValueError("variables of other shapes")
    except FileNotFoundError:
        return []
    # Whatever zipfile and NumPy raise.
    except Exception as error:
        print(f"{path}: corrupt, training restarts from scratch: {error}", flush=True)
        return []
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    print(f"Resuming after epoch {len(history)}, from {path}", flush=True)
    return EpochMetrics.from_rows(history)
