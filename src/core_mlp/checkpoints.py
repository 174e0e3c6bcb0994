"""The trained variables on disk, with what it takes to build their network."""

import math
from pathlib import Path

import tensorflow as tf

from core_mlp.descriptions import NetworkInfo
from core_mlp.errors import InputError
from core_mlp.layers import MLP
from core_mlp.reports import make_folder

VARIABLES = "variables"
DESCRIPTION = "network.json"


def build_model(
    network: NetworkInfo, seed: int = 0, product_dtype: tf.DType = tf.float32
) -> MLP:
    """Builds the network of a description, with fresh weights."""
    return MLP(
        input_size=math.prod(network.image_shape),
        output_sizes=[*network.hidden_sizes, len(network.class_names)],
        product_dtype=product_dtype,
        seed=seed,
    )


def write_checkpoint(folder: Path, model: MLP, network: NetworkInfo) -> None:
    """Writes a model's variables and the description of its network.

    Args:
      folder: Is made, in place of what was there.
      model: The trained model.
      network: From which `build_model` builds it.
    """
    make_folder(folder)
    tf.train.Checkpoint(model=model).write(str(folder / VARIABLES))
    network.write(folder / DESCRIPTION)


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
    except (tf.errors.OpError, ValueError, AssertionError) as error:
        problem = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: does not fit {DESCRIPTION}: {problem}") from error
    return model, network
