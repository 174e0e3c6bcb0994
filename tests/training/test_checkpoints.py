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
    for written, variable in zip(model.variables, read.variables, strict=True):
        np.testing.assert_array_equal(written, variable)


@pytest.mark.parametrize(
    "change",
    [{"hidden_sizes": (8,)}, {"hidden_sizes": (8, 7)}, {"image_shape": (4, 4, 2)}],
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
