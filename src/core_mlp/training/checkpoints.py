"""The checkpoint: trained weights, and the metadata to rebuild their network."""

from pathlib import Path

import tensorflow as tf

from core_mlp.pipeline.errors import InputError, first_line
from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.training.model import MLP

VARIABLES = "variables"
METADATA = "network.json"


def build_model(network: NetworkInfo, seed: int = 0, precision: str = "float32") -> MLP:
    """Builds a network with freshly initialized weights.

    Raises:
      InputError: If it does not fit into memory, or has too many convolutions for the
        size of the images.
    """
    num_halvings = len(network.conv_filters)
    side = min(network.image_shape[:2])
    if num_halvings and side <= 2 ** (num_halvings - 1):
        height, width, _ = network.image_shape
        allowed = f"at most {(side - 1).bit_length()}"
        raise InputError(
            f"conv_filters = {list(network.conv_filters)}: each convolution halves the "
            f"sides of the images, so {height} x {width} pixels allow {allowed}"
        )
    try:
        return MLP(
            image_shape=network.image_shape,
            output_sizes=[*network.hidden_sizes, len(network.class_names)],
            conv_filters=network.conv_filters,
            compute_dtype=tf.as_dtype(precision),
            seed=seed,
        )
    except tf.errors.ResourceExhaustedError as error:
        sizes = f"hidden_sizes = {list(network.hidden_sizes)}"
        if network.conv_filters:
            sizes = f"conv_filters = {list(network.conv_filters)}, {sizes}"
        raise InputError(f"{sizes}: does not fit into memory") from error


def write_checkpoint(folder: Path, model: MLP, network: NetworkInfo) -> None:
    """Writes a model's weights and the network that `build_model` built it from."""
    with atomic_output(folder, tf.errors.OpError) as partial:
        partial.mkdir()
        tf.train.Checkpoint(model=model).write(str(partial / VARIABLES))
        network.write(partial / METADATA)


def read_checkpoint(folder: Path) -> tuple[MLP, NetworkInfo]:
    """Rebuilds a network with its trained weights.

    Raises:
      InputError: If the weights are missing, corrupt or those of another network.
      OSError: If the metadata cannot be read.
    """
    network = NetworkInfo.read(folder / METADATA)
    model = build_model(network)
    path = str(folder / VARIABLES)
    try:
        tf.train.Checkpoint(model=model).read(path).assert_consumed()
    # TensorFlow raises IndexError for a truncated file.
    except (tf.errors.OpError, ValueError, AssertionError, IndexError) as error:
        problem = first_line(error)
        raise InputError(f"{path}: does not match {METADATA}: {problem}") from error
    return model, network
