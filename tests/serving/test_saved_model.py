"""The SavedModel, as its users call it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import try_to_run

from core_mlp.data.images import normalize_images
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.serving import answers
from core_mlp.serving import saved_model as serving
from core_mlp.training.model import MLP

SHAPE = (4, 3, 2)
NETWORK = NetworkInfo(
    image_shape=SHAPE, hidden_sizes=[8, 6], class_names=["a", "b", "c"]
)
IMAGES = np.random.default_rng(0).integers(0, 256, [20, 4, 3, 2], np.uint8)


@pytest.fixture
def model():
    return MLP(SHAPE, [8, 6, 3], seed=5)


@pytest.fixture
def saved_model(model, tmp_path):
    folder = tmp_path / "saved_model"
    serving.save_classifier(folder, serving.Classifier(model, SHAPE), NETWORK)
    return folder


def load(folder):
    return serving.load_classifier(folder)


def test_the_saved_model_agrees_with_the_model_in_memory(model, saved_model):
    found = load(saved_model)(IMAGES)

    logits = model(normalize_images(tf.constant(IMAGES)))
    np.testing.assert_array_equal(found["classes"], tf.argmax(logits, axis=1))
    np.testing.assert_allclose(found["probabilities"], tf.nn.softmax(logits), rtol=1e-6)
    np.testing.assert_allclose(
        tf.reduce_sum(found["probabilities"], axis=1), np.ones(20), rtol=1e-6
    )


@pytest.mark.parametrize(
    "images",
    [
        pytest.param(IMAGES[..., :1], id="gray"),
        pytest.param(np.repeat(IMAGES, 3, axis=0)[..., [0, 1, 1]], id="RGB"),
        pytest.param(IMAGES.reshape(-1, 24), id="flat"),
        pytest.param(IMAGES.transpose(0, 2, 1, 3), id="transposed"),
        pytest.param(IMAGES.astype(np.float32), id="float"),
        pytest.param(IMAGES.astype(np.int64), id="int64"),
    ],
)
def test_the_saved_model_refuses_other_images(saved_model, images):
    classify = load(saved_model)

    with pytest.raises((TypeError, ValueError, tf.errors.InvalidArgumentError)):
        classify(images)


def test_a_process_without_our_code_can_use_the_saved_model(saved_model, tmp_path):
    """With TensorFlow's own command, from a folder without our code."""
    command = ["python", str(Path(sys.executable).with_name("saved_model_cli"))]
    options = {"dir": saved_model, "tag_set": "serve"}
    options["signature_def"] = "serving_default"
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "rgb.npy", np.zeros([1, 4, 3, 3], np.uint8))

    def saved_model_cli(*arguments):
        named = [text for key, value in options.items() for text in (f"--{key}", value)]
        return try_to_run(*command, *arguments, *map(str, named), cwd=tmp_path)

    shown = saved_model_cli("show").stdout
    answered = saved_model_cli(
        "run", "--inputs", "images=images.npy", "--outdir", "answers"
    )
    refused = saved_model_cli("run", "--inputs", "images=rgb.npy")

    assert "inputs['images'] tensor_info:\n      dtype: DT_UINT8" in shown
    assert "shape: (-1, 4, 3, 2)" in shown
    assert "outputs['classes'] tensor_info:\n      dtype: DT_INT64" in shown
    assert "outputs['probabilities'] tensor_info:\n      dtype: DT_FLOAT" in shown
    assert answered.returncode == 0, answered.stdout
    for key, answer in load(saved_model)(IMAGES).items():
        np.testing.assert_allclose(
            np.load(tmp_path / f"answers/{key}.npy"), answer, rtol=1e-6
        )
    assert refused.returncode != 0
    assert "Cannot feed value of shape" in refused.stdout


def test_the_saved_model_has_no_random_bytes(model, saved_model):
    assert sorted(path.name for path in saved_model.rglob("*") if path.is_file()) == [
        "network.json",
        "saved_model.pb",
        "variables.data-00000-of-00001",
        "variables.index",
    ]


def test_predictions_do_not_depend_on_the_batch_size(saved_model, monkeypatch):
    expected = answers.predict(load(saved_model), IMAGES)
    monkeypatch.setattr(answers, "evaluation_batch_size", lambda shape: 7)

    predicted, probabilities = answers.predict(load(saved_model), IMAGES)

    np.testing.assert_array_equal(predicted, expected[0])
    np.testing.assert_allclose(probabilities, expected[1], rtol=1e-6)


def test_a_missing_saved_model_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path}: cannot be loaded: "):
        load(tmp_path)


def test_a_corrupt_saved_model_is_refused(saved_model):
    path = saved_model / "variables/variables.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    for corrupt in (content, content[:-1], b""):
        path.write_bytes(corrupt)

        with pytest.raises(InputError, match="cannot be loaded: ") as error:
            load(saved_model)
        assert "\n" not in str(error.value)
