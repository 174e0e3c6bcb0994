"""From the trained model by way of its checkpoint to the SavedModel."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from core_mlp import checkpoints, outputs, serving
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


def load(folder):
    return serving.load_classifier(folder, NETWORK.image_shape, 3)


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
    for damaged in (content, content[:-1], b""):
        path.write_bytes(damaged)

        with pytest.raises(InputError, match=r"variables: "):
            checkpoints.read_checkpoint(folder)


def test_the_state_of_a_training_comes_back_to_the_last_bit(tmp_path):
    variables = [tf.Variable(np.pi), tf.Variable(7, dtype=tf.int64)]
    history = [[1.0, np.pi], [2.0, 1e-300]]
    path = tmp_path / "state.npz"
    checkpoints.save_state(path, variables, history)
    others = [tf.Variable(0.0), tf.Variable(0, dtype=tf.int64)]

    assert checkpoints.restore_state(path, others) == history
    assert [v.numpy() for v in others] == [v.numpy() for v in variables]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:700], id="truncated"),
        pytest.param(
            lambda content: content[:900] + b"?" + content[901:], id="corrupted"
        ),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"no archive at all", id="other"),
    ],
)
def test_a_damaged_state_is_told_and_not_used(tmp_path, capsys, damage):
    variables = [tf.Variable(tf.random.stateless_normal([200], [0, 0]))]
    path = tmp_path / "state.npz"
    checkpoints.save_state(path, variables, [[1.0]])
    path.write_bytes(damage(path.read_bytes()))
    others = [tf.Variable(tf.zeros([200]))]

    assert checkpoints.restore_state(path, others) == []
    assert "damaged, so the training begins anew" in capsys.readouterr().out
    assert not np.any(others[0].numpy())


def test_no_flipped_bit_gives_another_state(tmp_path, capsys):
    variables = [tf.Variable(tf.random.stateless_normal([9], [0, 0]))]
    history = [[float(epoch)] * 6 for epoch in range(100)]
    path = tmp_path / "state.npz"
    checkpoints.save_state(path, variables, history)
    whole = path.read_bytes()
    num_refused = 0
    # Where the archive and the arrays say how long they are.
    for position in (*range(300), *range(len(whole) - 700, len(whole))):
        content = bytearray(whole)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        others = [tf.Variable(tf.zeros([9]))]

        restored = checkpoints.restore_state(path, others)

        expected = variables[0] if restored else tf.zeros([9])
        assert restored in ([], history), position
        np.testing.assert_array_equal(others[0], expected)
        num_refused += not restored
    assert num_refused > 700
    assert capsys.readouterr().out.count("damaged") == num_refused


def test_a_state_of_another_network_is_not_used(tmp_path):
    path = tmp_path / "state.npz"
    checkpoints.save_state(path, [tf.Variable(tf.zeros([3]))], [[1.0]])

    assert checkpoints.restore_state(path, [tf.Variable(tf.zeros([4]))]) == []


def test_a_state_has_one_owner_and_goes_with_a_finished_training(monkeypatch):
    is_waiting = threading.Event()
    monkeypatch.setattr(
        outputs, "print", lambda *_, **__: is_waiting.set(), raising=False
    )

    def train_the_same():
        with checkpoints.exclusive_state("key") as path:
            return path.exists()

    with ThreadPoolExecutor() as executor:
        with checkpoints.exclusive_state("key") as path:
            path.touch()
            second = executor.submit(train_the_same)
            assert is_waiting.wait(timeout=60)
            assert not second.done()
        assert second.result() is False
    assert not list(path.parent.iterdir())


def test_a_state_stays_when_a_training_fails():
    def fail():
        with checkpoints.exclusive_state("key") as path:
            path.touch()
            raise InputError

    with pytest.raises(InputError):
        fail()
    with checkpoints.exclusive_state("key") as path:
        assert path.exists()
        assert len(list(path.parent.iterdir())) == 2


def test_the_saved_model_agrees_with_the_model_in_memory(model, saved_model):
    answers = load(saved_model)(images=tf.constant(IMAGES))

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
    classify = load(saved_model)

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
    answers = load(saved_model)(images=tf.constant(IMAGES))
    for key, answer in answers.items():
        np.testing.assert_allclose(
            np.load(tmp_path / f"answers/{key}.npy"), answer, rtol=1e-6
        )
    assert refused.returncode != 0
    assert "Cannot feed value of shape" in refused.stderr


def test_a_missing_saved_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path)
    assert error.value.filename == str(tmp_path / "fingerprint.pb")


def test_a_saved_model_of_another_signature_is_refused(tmp_path):
    module = tf.Module()
    module.call = tf.function(
        lambda pixels: {"answers": pixels},
        input_signature=[tf.TensorSpec([1], name="pixels")],
    )
    tf.saved_model.save(module, str(tmp_path), signatures=module.call)
    with pytest.raises(InputError, match="damaged, or not written by export"):
        load(tmp_path)
    serving._fix_fingerprint(tmp_path)

    with pytest.raises(InputError) as error:
        load(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: its signature is "
        "{'pixels': 'float32 [1]', 'answers': 'float32 [1]'}; expected "
        "{'images': 'uint8 [None, 4, 3, 2]', 'classes': 'int64 [None]', "
        "'probabilities': 'float32 [None, 3]'}"
    )


@pytest.mark.parametrize(
    ("image_shape", "num_classes"), [((3, 4, 2), 3), ((4, 3, 2), 4)]
)
def test_a_saved_model_of_another_dataset_is_refused(
    saved_model, image_shape, num_classes
):
    with pytest.raises(InputError, match="its signature is"):
        serving.load_classifier(saved_model, image_shape, num_classes)


@pytest.mark.parametrize(
    "name",
    ["saved_model.pb", "fingerprint.pb", "variables/variables.data-00000-of-00001"],
)
def test_a_flipped_bit_in_a_saved_model_is_refused(saved_model, name):
    content = bytearray((saved_model / name).read_bytes())
    content[len(content) // 2] ^= 1
    for damaged in (content, content[:-1], b""):
        (saved_model / name).write_bytes(damaged)

        with pytest.raises(InputError, match=r"damaged|fingerprint.pb: ") as error:
            load(saved_model)
        assert "\n" not in str(error.value)
