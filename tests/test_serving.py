"""From the trained model by way of its checkpoint to the SavedModel."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from core_mlp import checkpoints, serving
from core_mlp.descriptions import NetworkInfo
from core_mlp.errors import InputError
from core_mlp.images import normalise_images

NETWORK = NetworkInfo(
    image_shape=(4, 3, 2), hidden_sizes=(8, 6), class_names=("cat", "dog", "owl")
)
IMAGES = np.random.default_rng(0).integers(0, 256, [20, 4, 3, 2], np.uint8)


@pytest.fixture
def model():
    return checkpoints.build_model(NETWORK, seed=5)


@pytest.fixture
def saved_model(model, tmp_path):
    folder = tmp_path / "saved_model"
    serving.save_classifier(folder, serving.Classifier(model, NETWORK.image_shape))
    return folder


def test_a_checkpoint_brings_back_the_model(model, tmp_path):
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

    with pytest.raises(InputError, match=r"does not fit network.json") as error:
        checkpoints.read_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_a_damaged_checkpoint_is_refused(model, tmp_path):
    folder = tmp_path / "checkpoint"
    checkpoints.write_checkpoint(folder, model, NETWORK)
    path = folder / "variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"variables: "):
        checkpoints.read_checkpoint(folder)


def test_the_saved_model_agrees_with_the_model_in_memory(model, saved_model):
    answers = serving.load_classifier(saved_model)(images=tf.constant(IMAGES))

    logits = model(normalise_images(tf.constant(IMAGES)))
    np.testing.assert_array_equal(answers["classes"], tf.argmax(logits, axis=1))
    np.testing.assert_allclose(
        answers["probabilities"], tf.nn.softmax(logits), rtol=1e-6
    )
    np.testing.assert_allclose(
        tf.reduce_sum(answers["probabilities"], axis=1), np.ones(20), rtol=1e-6
    )


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(IMAGES[..., :1], id="grey"),
        pytest.param(np.repeat(IMAGES, 3, axis=0)[..., [0, 1, 1]], id="RGB"),
        pytest.param(IMAGES.reshape(-1, 24), id="flat"),
        pytest.param(IMAGES.transpose(0, 2, 1, 3), id="transposed"),
        pytest.param(IMAGES.astype(np.float32), id="float"),
        pytest.param(IMAGES.astype(np.int64), id="int64"),
    ],
)
def test_the_saved_model_refuses_other_images(saved_model, images):
    classify = serving.load_classifier(saved_model)

    with pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError)):
        classify(images=tf.constant(images))


def test_a_process_without_our_code_can_use_the_saved_model(saved_model, tmp_path):
    """With TensorFlow's own command, from a folder without our code."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [Path(sys.executable).parent / "saved_model_cli"]
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "rgb.npy", np.zeros([1, 4, 3, 3], np.uint8))

    def saved_model_cli(*arguments):
        return subprocess.run(
            [
                *command,
                *arguments,
                "--dir",
                saved_model,
                "--tag_set",
                "serve",
                "--signature_def",
                "serving_default",
            ],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    shown = saved_model_cli("show").stdout
    answered = saved_model_cli(
        "run", "--inputs", "images=images.npy", "--outdir", "answers"
    )
    refused = saved_model_cli("run", "--inputs", "images=rgb.npy")

    assert "inputs['images'] tensor_info:\n      dtype: DT_UINT8" in shown
    assert "shape: (-1, 4, 3, 2)" in shown
    assert "outputs['classes'] tensor_info:\n      dtype: DT_INT64" in shown
    assert "outputs['probabilities'] tensor_info:\n      dtype: DT_FLOAT" in shown
    assert answered.returncode == 0, answered.stderr
    answers = serving.load_classifier(saved_model)(images=tf.constant(IMAGES))
    for key, answer in answers.items():
        np.testing.assert_allclose(
            np.load(tmp_path / f"answers/{key}.npy"), answer, rtol=1e-6
        )
    assert refused.returncode != 0
    assert "Cannot feed value of shape" in refused.stderr


def test_a_missing_saved_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded") as error:
        serving.load_classifier(tmp_path)
    assert "\n" not in str(error.value)


def test_a_saved_model_of_another_signature_is_refused(tmp_path):
    module = tf.Module()
    module.call = tf.function(
        lambda pixels: pixels, input_signature=[tf.TensorSpec([1], name="pixels")]
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)

    with pytest.raises(InputError, match=r"has inputs \['pixels'\]"):
        serving.load_classifier(tmp_path)
