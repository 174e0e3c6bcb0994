"""The checkpoint."""

import numpy as np
import pytest

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.training import checkpoints

NETWORK = NetworkInfo(
    image_shape=(4, 3, 2), hidden_sizes=(8, 6), class_names=("cat", "dog", "owl")
)


@pytest.fixture
def model():
    return checkpoints.build_model(NETWORK, seed=5)


def test_a_checkpoint_restores_the_model(model, tmp_path):
    folder = tmp_path / "checkpoint"
    checkpoints.write_checkpoint(folder, model, NETWORK)

    read, network = checkpoints.read_checkpoint(folder)

    assert network == NETWORK
    assert "conv_filters" not in (folder / "network.json").read_text()
    for written, variable in zip(model.variables, read.variables, strict=True):
        np.testing.assert_array_equal(written, variable)


def test_a_checkpoint_restores_convolutions(tmp_path):
    network = NETWORK.model_copy(update={"conv_filters": (5, 7)})
    model = checkpoints.build_model(network, seed=5)
    checkpoints.write_checkpoint(tmp_path / "checkpoint", model, network)

    read, read_network = checkpoints.read_checkpoint(tmp_path / "checkpoint")

    assert read_network == network
    for written, variable in zip(model.variables, read.variables, strict=True):
        np.testing.assert_array_equal(written, variable)


@pytest.mark.parametrize(
    ("shape", "allowed"), [((1, 9), 0), ((2, 2), 1), ((3, 4), 2), ((28, 28), 5)]
)
def test_more_convolutions_than_the_images_allow_are_refused(shape, allowed):
    def build(number):
        update = {"image_shape": (*shape, 1), "conv_filters": (2,) * number}
        return checkpoints.build_model(NETWORK.model_copy(update=update))

    build(allowed)
    with pytest.raises(InputError) as error:
        build(allowed + 1)
    assert str(error.value).endswith(
        f"each convolution halves the sides of the images, so {shape[0]} x {shape[1]} "
        f"pixels allow at most {allowed}"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_sizes": (8,)},
        {"conv_filters": (4,)},
        {"hidden_sizes": (8, 7)},
        {"image_shape": (4, 4, 2)},
    ],
)
def test_a_checkpoint_of_another_network_is_refused(model, tmp_path, change):
    folder = tmp_path / "checkpoint"
    checkpoints.write_checkpoint(folder, model, NETWORK.model_copy(update=change))

    with pytest.raises(InputError, match=r"does not match network.json") as error:
        checkpoints.read_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_a_corrupt_checkpoint_is_refused(model, tmp_path):
    folder = tmp_path / "checkpoint"
    checkpoints.write_checkpoint(folder, model, NETWORK)
    path = folder / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    for corrupt in (content, content[:-1], b""):
        path.write_bytes(corrupt)

        with pytest.raises(InputError, match=r"variables: "):
            checkpoints.read_checkpoint(folder)
