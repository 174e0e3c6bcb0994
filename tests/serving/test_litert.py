"""The LiteRT model, run by the runtime that phones use."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.serving import answers, litert, saved_model
from core_mlp.training.checkpoints import build_model

SHAPE = (6, 5, 2)
IMAGES = np.random.default_rng(0).integers(0, 256, [500, *SHAPE], np.uint8)


@pytest.fixture(scope="module", params=[[], [8, 16]], ids=["dense", "convolutions"])
def network(request):
    return NetworkInfo(
        image_shape=SHAPE,
        conv_filters=request.param,
        hidden_sizes=[64],
        class_names=["a", "b", "c"],
    )


@pytest.fixture(scope="module")
def source(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("litert") / "saved_model"
    classifier = saved_model.Classifier(build_model(network, seed=2), SHAPE)
    saved_model.save_classifier(folder, classifier, network)
    return folder


@pytest.fixture(scope="module")
def models(source, tmp_path_factory):
    """Folders of the float model and of the quantized one."""
    folder = tmp_path_factory.mktemp("models")
    for quantize in (False, True):
        litert.convert(source, folder / str(quantize), quantize=quantize)
    return folder / "False", folder / "True"


def answer(classify):
    return answers.predict(classify, IMAGES)


def test_the_float_model_answers_as_the_saved_model(source, models):
    expected, expected_probabilities = answer(saved_model.load_classifier(source))

    classes, probabilities = answer(litert.load_classifier(models[0]))

    np.testing.assert_array_equal(classes, expected)
    np.testing.assert_allclose(probabilities, expected_probabilities, atol=1e-6)
    assert classes.dtype == expected.dtype
    assert probabilities.dtype == np.float32


def test_the_quantized_model_is_close_and_smaller(source, models):
    _, expected = answer(saved_model.load_classifier(source))

    _, probabilities = answer(litert.load_classifier(models[1]))

    difference = np.abs(probabilities - expected).max()
    assert 1e-6 < difference < 0.05
    sizes = [(folder / "model.tflite").stat().st_size for folder in models]
    assert sizes[1] < sizes[0]


def test_the_signature_is_the_saved_models(models, network):
    for folder in models:
        interpreter = Interpreter(str(folder / "model.tflite"))
        assert interpreter.get_signature_list() == {
            "serving_default": {
                "inputs": ["images"],
                "outputs": ["classes", "probabilities"],
            }
        }
        (image,) = interpreter.get_input_details()
        assert image["dtype"] is np.uint8
        assert image["shape_signature"].tolist() == [-1, *SHAPE]
        assert NetworkInfo.read(folder / "network.json") == network


def test_another_process_writes_the_same_bytes(source, models, tmp_path):
    code = (
        "import sys; from pathlib import Path; from core_mlp.serving import litert; "
        "litert.convert(Path(sys.argv[1]), Path(sys.argv[2]), quantize=True)"
    )
    command = [sys.executable, "-c", code, source, tmp_path / "again"]
    subprocess.run(command, check=True, capture_output=True)

    again = (tmp_path / "again/model.tflite").read_bytes()
    assert again == (models[1] / "model.tflite").read_bytes()


def test_another_type_is_refused(models):
    classify = litert.load_classifier(models[1])

    with pytest.raises(ValueError, match="FLOAT32 but expected type UINT8"):
        classify(images=tf.zeros([1, *SHAPE]))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_a_missing_or_corrupt_model_is_refused(source, tmp_path, damage):
    litert.convert(source, tmp_path / "litert", quantize=False)
    damage(tmp_path / "litert/model.tflite")

    with pytest.raises(InputError, match=r"model\.tflite: cannot be loaded: ") as error:
        litert.load_classifier(tmp_path / "litert")
    assert "\n" not in str(error.value)
