"""Resumable training state."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, run

from core_mlp.pipeline.errors import InputError
from core_mlp.results.train import EpochResult
from core_mlp.training import resume


class Variables(tf.Module):
    """Holds variables, as a model or an optimizer does."""

    def __init__(self, *values):
        self.all = [tf.Variable(value) for value in values]


NOTHING = Variables()
HISTORY = [
    EpochResult(1, np.pi, 0.5, 0.25, 1e-300),
    EpochResult(2, np.e, 0.4, 0.5, 1e300),
]


def test_a_state_is_restored_to_the_last_bit(tmp_path, capsys):
    path = tmp_path / "state.npz"
    steps = np.array(7, np.int64)
    resume.save_state(path, [Variables(np.float32(np.pi)), Variables(steps)], HISTORY)
    model, optimizer = Variables(np.float32(0)), Variables(np.int64(0))

    assert resume.restore_state(path, [model, optimizer]) == HISTORY
    assert model.all[0].numpy() == np.float32(np.pi)
    assert optimizer.all[0].numpy() == 7
    assert capsys.readouterr().out == f"Resuming after epoch 2, from {path}\n"


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:700], id="truncated"),
        pytest.param(lambda content: content[:900] + b"?" + content[901:], id="bit"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"no archive at all", id="other"),
    ],
)
def test_a_corrupt_state_is_reported_and_not_used(tmp_path, capsys, damage):
    path = tmp_path / "state.npz"
    weights = tf.random.stateless_normal([200], [0, 0])
    resume.save_state(path, [Variables(weights), NOTHING], HISTORY)
    path.write_bytes(damage(path.read_bytes()))
    model = Variables(tf.zeros([200]))

    assert resume.restore_state(path, [model, NOTHING]) == []
    assert "corrupt, training restarts from scratch" in capsys.readouterr().out
    assert not np.any(model.all[0].numpy())


def test_no_flipped_bit_gives_another_state(tmp_path, capsys):
    path = tmp_path / "state.npz"
    weights = tf.random.stateless_normal([9], [0, 0])
    history = HISTORY * 50
    resume.save_state(path, [Variables(weights), NOTHING], history)
    intact = path.read_bytes()
    num_refused = 0
    # Where the archive and the arrays state their lengths.
    for position in (*range(300), *range(len(intact) - 700, len(intact))):
        content = bytearray(intact)
        content[position] ^= 1 << position % 8
        path.write_bytes(content)
        model = Variables(tf.zeros([9]))

        restored = resume.restore_state(path, [model, NOTHING])

        assert restored in ([], history), position
        np.testing.assert_array_equal(
            model.all[0], weights if restored else tf.zeros([9])
        )
        num_refused += not restored
    assert num_refused > 700
    assert capsys.readouterr().out.count("corrupt") == num_refused


def test_a_state_of_another_network_is_not_used(tmp_path):
    path = tmp_path / "state.npz"
    resume.save_state(path, [Variables(tf.zeros([3])), NOTHING], HISTORY)

    assert resume.restore_state(path, [Variables(tf.zeros([4])), NOTHING]) == []


def test_a_state_is_deleted_when_its_training_has_finished():
    with resume.exclusive_state(["finished"]) as path:
        path.touch()

    assert not path.exists()


def test_a_state_stays_when_its_training_fails():
    def fail():
        with resume.exclusive_state(["failed"]) as path:
            path.touch()
            raise InputError

    with pytest.raises(InputError):
        fail()
    with resume.exclusive_state(["failed"]) as path:
        assert path.exists()


def test_the_code_of_a_run_is_what_train_imports():
    """An edit of the demo or of a report does not restart an interrupted training."""
    code = (
        "from stages import train; from core_mlp.training import resume; "
        "print(*resume.imported_modules(), sep='\\n')"
    )
    printed = run("python", "-c", code, cwd=ROOT, PYTHONPATH=f"{ROOT}:{ROOT / 'src'}")

    package = ROOT / "src/core_mlp"
    lines = [line for line in printed.splitlines() if line.startswith(str(package))]
    modules = {str(Path(line).relative_to(package)) for line in lines}
    assert {"training/step.py", "distributed/replicas.py", "data/images.py"} <= modules
    rooms = {module.split("/")[0] for module in modules}
    assert not rooms & {"serving", "reporting", "experiments", "sources", "evaluation"}
