"""The trained variables on disk, and the state of a training on its way there."""

import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import platformdirs
import tensorflow as tf

from core_mlp.descriptions import NetworkInfo
from core_mlp.errors import InputError
from core_mlp.layers import MLP
from core_mlp.outputs import exclusive, replacing

VARIABLES = "variables"
DESCRIPTION = "network.json"


def build_model(
    network: NetworkInfo, seed: int = 0, product_dtype: tf.DType = tf.float32
) -> MLP:
    """Builds the network of a description, with fresh weights.

    Raises:
      InputError: If there is no memory for it.
    """
    try:
        return MLP(
            input_size=math.prod(network.image_shape),
            output_sizes=[*network.hidden_sizes, len(network.class_names)],
            product_dtype=product_dtype,
            seed=seed,
        )
    except tf.errors.ResourceExhaustedError as error:
        sizes = list(network.hidden_sizes)
        raise InputError(
            f"hidden_sizes = {sizes}: more than the memory holds"
        ) from error


def write_checkpoint(folder: Path, model: MLP, network: NetworkInfo) -> None:
    """Writes a model's variables and the description of its network.

    Args:
      folder: Is made, in place of what was there.
      model: The trained model.
      network: From which `build_model` builds it.
    """
    with replacing(folder, tf.errors.OpError) as partial:
        partial.mkdir()
        tf.train.Checkpoint(model=model).write(str(partial / VARIABLES))
        network.write(partial / DESCRIPTION)


def read_checkpoint(folder: Path) -> tuple[MLP, NetworkInfo]:
    """Builds the network that a checkpoint describes, with the weights in it.

    Raises:
      InputError: If the variables are missing, damaged or of another network.
      OSError: If the description cannot be read.
    """
    network = NetworkInfo.read(folder / DESCRIPTION)
    model = build_model(network)
    path = str(folder / VARIABLES)
    try:
        tf.train.Checkpoint(model=model).read(path).assert_consumed()
    # An IndexError is TensorFlow's for a file that ends too early.
    except (tf.errors.OpError, ValueError, AssertionError, IndexError) as error:
        problem = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: does not fit {DESCRIPTION}: {problem}") from error
    return model, network


@contextmanager
def exclusive_state(key: str) -> Iterator[Path]:
    """Gives the place for a training's state to one process at a time.

    It is in `$CORE_MLP_STATE_DIR`, by default in the user's folder for such things:
    outside the repository, so that any copy of it can go on with the training. If the
    block ends well, the state is removed.

    Args:
      key: What tells this training from all others.

    Yields:
      A path, at which there may be the state of a training that was interrupted.

    Raises:
      OSError: If the folder cannot be written to.
    """
    folder = os.environ.get("CORE_MLP_STATE_DIR")
    path = Path(folder or platformdirs.user_state_path("core_mlp")) / f"{key}.npz"
    with exclusive(path.with_suffix(".lock"), "trains the very same"):
        yield path
        path.unlink(missing_ok=True)


def save_state(
    path: Path, variables: Sequence[tf.Variable], history: Sequence[Sequence[float]]
) -> None:
    """Saves the state of a training.

    Args:
      path: A .npz, replaced as a whole.
      variables: Of model and optimizer.
      history: A row of numbers for each epoch.

    Raises:
      OSError: If it cannot be written.
    """
    arrays = [np.array(history), *(variable.numpy() for variable in variables)]
    with replacing(path) as partial:
        np.savez(partial, *arrays)


def restore_state(path: Path, variables: Sequence[tf.Variable]) -> list[list[float]]:
    """Restores the state of a training, if there is one that is whole.

    Args:
      path: From `save_state`.
      variables: Are assigned the values that they had.

    Returns:
      The history; empty if the training has to begin anew.
    """
    try:
        with zipfile.ZipFile(path) as file:
            # NumPy reads as far as it has to, and the checksum stands at the end.
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
        print(f"{path}: damaged, so the training begins anew: {error}", flush=True)
        return []
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return history.tolist()
