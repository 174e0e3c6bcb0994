"""State of training runs: resumed if interrupted, continued by runs of more epochs."""

import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, run, write_params

from core_mlp.pipeline.errors import InputError
from core_mlp.results.train import EpochResult
from core_mlp.training import resume, step, threads
from stages import train


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
    path = tmp_path / "run.2.npz"
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
    path = tmp_path / "run.2.npz"
    weights = tf.random.stateless_normal([200], [0, 0])
    resume.save_state(path, [Variables(weights), NOTHING], HISTORY)
    path.write_bytes(damage(path.read_bytes()))
    model = Variables(tf.zeros([200]))

    assert resume.restore_state(path, [model, NOTHING]) == []
    assert f"{path}: corrupt, training does not use it" in capsys.readouterr().out
    assert not np.any(model.all[0].numpy())


def test_no_flipped_bit_gives_another_state(tmp_path, capsys):
    path = tmp_path / "run.2.npz"
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
    path = tmp_path / "run.2.npz"
    resume.save_state(path, [Variables(tf.zeros([3])), NOTHING], HISTORY)

    assert resume.restore_state(path, [Variables(tf.zeros([4])), NOTHING]) == []


def exclusive_state(name, num_epochs=2):
    run = {"parameters": name, "epochs": str(num_epochs)}
    return resume.exclusive_state(run, [], num_epochs)


def test_a_state_is_deleted_when_its_training_has_finished():
    with exclusive_state("finished") as path:
        path.touch()

    assert not path.exists()


def test_a_state_that_cannot_be_deleted_does_not_fail_its_training(capsys):
    with exclusive_state("finished") as path:
        path.mkdir()

    assert f"{path}: cannot be deleted: Is a directory" in capsys.readouterr().out


def test_a_state_stays_when_its_training_fails():
    def fail():
        with exclusive_state("failed") as path:
            path.touch()
            raise InputError

    with pytest.raises(InputError):
        fail()
    with exclusive_state("failed") as path:
        assert path.exists()


def finish(num_epochs, *, name="run", fail_after=None):
    """Trains as the stage does: an epoch adds its number to the only weight.

    Returns:
      How many epochs it did not have to train.
    """
    model = Variables(np.float32(0))
    with exclusive_state(name, num_epochs) as path:
        history = resume.restore_state(path, [model])
        num_restored = len(history)
        for epoch in range(num_restored + 1, num_epochs + 1):
            model.all[0].assign_add(epoch)
            history.append(EpochResult(epoch, 0.5, 0.5, 0.5, 0.5))
            resume.save_state(path, [model], history)
            if epoch == fail_after:
                raise InputError
        resume.keep_state(path, [model], history)
    assert [result.epoch for result in history] == list(range(1, num_epochs + 1))
    assert model.all[0].numpy() == num_epochs * (num_epochs + 1) / 2
    assert not path.exists()
    return num_restored


def finished_states():
    """Returns the paths of the finished runs' states by their numbers of epochs."""
    folder = Path(os.environ["CORE_MLP_STATE_DIR"]) / "finished"
    return {int(path.stem.split(".")[1]): path for path in folder.glob("*.npz")}


def test_a_run_continues_the_longest_shorter_one(capsys):
    assert finish(2) == 0
    assert finish(3) == 2
    assert finish(12) == 3
    assert finish(10) == 3
    assert finish(11) == 10

    assert sorted(finished_states()) == [2, 3, 10, 11, 12]
    assert capsys.readouterr().out.splitlines() == [
        f"Continuing after epoch {epoch}, from {finished_states()[epoch]}"
        for epoch in (2, 3, 3, 10)
    ]


def test_a_run_does_not_continue_one_that_differs_in_more_than_epochs():
    finish(2)

    assert finish(3, name="other") == 0


def test_a_repeated_run_trains_every_epoch():
    """Otherwise `dvc repro --force` would compare results with themselves."""
    finish(2)
    finish(4)

    assert finish(4) == 0
    assert finish(2) == 0


def test_a_shorter_run_trains_every_epoch_and_leaves_the_longer_ones_state():
    finish(5)

    assert finish(3) == 0
    assert finish(6) == 5


def test_an_interrupted_run_resumes_from_its_own_state(capsys):
    finish(2)
    with pytest.raises(InputError):
        finish(6, fail_after=3)
    finish(5)
    capsys.readouterr()

    assert finish(6) == 3
    assert capsys.readouterr().out.startswith("Resuming after epoch 3, from ")


@pytest.mark.parametrize("num_corrupt", [1, 2])
def test_a_corrupt_finished_state_is_reported_and_the_next_one_used(
    capsys, num_corrupt
):
    finish(2)
    finish(4)
    corrupt = [finished_states()[number] for number in (4, 2)[:num_corrupt]]
    for path in corrupt:
        path.write_bytes(path.read_bytes()[:-1])
    capsys.readouterr()

    assert finish(5) == (2 if num_corrupt == 1 else 0)
    lines = capsys.readouterr().out.splitlines()
    for path, line in zip(corrupt, lines, strict=False):
        assert line.startswith(f"{path}: corrupt, training does not use it: ")
    assert len(lines) == 2


def test_the_least_recently_used_states_are_deleted(monkeypatch):
    with pytest.raises(InputError):
        finish(9, name="interrupted", fail_after=8)
    for number in (1, 2, 3):
        finish(number, name=f"run {number}")
    states = finished_states()
    for age, number in enumerate((2, 3, 1)):
        os.utime(states[number], (10 - age, 10 - age))
    size = states[1].stat().st_size
    # Room for three states, and a bit, as they grow by a line each epoch.
    monkeypatch.setattr(resume, "FINISHED_BYTES", 3 * size + size // 2)

    # Uses the state of one epoch, and adds one of four.
    assert finish(4, name="run 1") == 1

    assert sorted(finished_states()) == [1, 2, 4]
    assert finish(9, name="interrupted") == 8


def test_a_state_that_exceeds_the_limit_is_not_kept(monkeypatch, capsys):
    finish(1)
    monkeypatch.setattr(resume, "FINISHED_BYTES", 10)

    finish(2)

    assert list(finished_states()) == [1]


def test_a_state_that_cannot_be_kept_is_one_line(capsys):
    finished = Path(os.environ["CORE_MLP_STATE_DIR"], "finished")
    finished.touch()

    assert finish(2) == 0

    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{finished}/")
    assert line.endswith(
        "cannot be kept: File exists: a run of more epochs starts from scratch"
    )
    assert finish(3) == 0


def test_a_state_may_be_deleted_while_it_is_read(monkeypatch):
    finish(2)
    state = finished_states()[2]
    testzip = zipfile.ZipFile.testzip

    def delete_and_test(archive):
        state.unlink()
        return testzip(archive)

    monkeypatch.setattr(zipfile.ZipFile, "testzip", delete_and_test)

    assert finish(3) == 2


def test_a_state_may_be_deleted_before_it_is_read(monkeypatch, capsys):
    finish(2)
    shorter_states = resume.shorter_states

    def find_and_delete(path):
        found = shorter_states(path)
        finished_states()[2].unlink()
        return found

    monkeypatch.setattr(resume, "shorter_states", find_and_delete)

    assert finish(3) == 0
    assert capsys.readouterr().out == ""


def test_states_may_be_deleted_by_two_processes_at_once(tmp_path):
    for number in range(3):
        (tmp_path / f"run.{number}.npz").write_bytes(b"state")
    # Listed, but gone.
    (tmp_path / "run.4.npz").symlink_to(tmp_path / "deleted")

    resume.delete_least_recently_used(tmp_path, 10)

    assert len([path for path in tmp_path.iterdir() if path.exists()]) == 2


@pytest.fixture
def digits(digits_dir, tmp_path, monkeypatch):
    """A copy of a folder in which fetch and preprocess have run."""
    folder = shutil.copytree(digits_dir, tmp_path / "digits")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def eager(monkeypatch):
    """Does not compile the epochs, which would take longer than they do."""
    functions = step.Compiled(train_epoch=step.train_epoch, evaluate=step.evaluate)
    monkeypatch.setattr(train.replicas, "compile_functions", lambda _: functions)


OUTPUTS = (
    "metrics/train.json",
    "models/checkpoint/network.json",
    "models/checkpoint/variables.data-00000-of-00001",
    "models/checkpoint/variables.index",
    "plots/activations.csv",
    "plots/distortions.png",
    "plots/history.csv",
)


class Trained:
    """What the stage has trained, printed and written."""

    def __init__(self, folder, capsys, **changes):
        write_params(folder, **({"batch_size": 600} | changes))
        capsys.readouterr()
        train.main()
        self.printed = capsys.readouterr().out
        numbers = re.findall(r"^Epoch +(\d+)/", self.printed, re.M)
        self.epochs = [int(number) for number in numbers]
        self.outputs = {name: (folder / name).read_bytes() for name in OUTPUTS}


def check_that_more_epochs_have_the_bytes_of_a_run_from_scratch(
    folder, capsys, **settings
):
    Trained(folder, capsys, epochs=2, **settings)
    continued = Trained(folder, capsys, epochs=5, **settings)
    shutil.rmtree(os.environ["CORE_MLP_STATE_DIR"])
    scratch = Trained(folder, capsys, epochs=5, **settings)

    assert continued.epochs == [3, 4, 5]
    assert "Continuing after epoch 2, from " in continued.printed
    assert scratch.epochs == [1, 2, 3, 4, 5]
    assert continued.outputs == scratch.outputs


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize(
    "settings",
    [{"seed": 0}, {"ema_decay": 0.9}, {"patience": 3}, {"weight_decay": 0.1}],
    ids=str,
)
def test_more_epochs_have_the_bytes_of_a_run_from_scratch(digits, capsys, settings):
    check_that_more_epochs_have_the_bytes_of_a_run_from_scratch(
        digits, capsys, **settings
    )


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_more_epochs_of_everything_at_once_do_too(digits, capsys, precision):
    check_that_more_epochs_have_the_bytes_of_a_run_from_scratch(
        digits,
        capsys,
        conv_filters=[4],
        batch_size=128,
        precision=precision,
        weight_decay=0.1,
        ema_decay=0.9,
        patience=3,
        augmentation={"rotation": 10.0, "shift": 1.0, "elastic": 0.5},
    )


@pytest.mark.usefixtures("eager")
def test_a_run_that_stopped_early_has_nothing_left_to_train(digits, capsys):
    settings = {"patience": 1, "learning_rate": 0.01}
    stopped = Trained(digits, capsys, epochs=40, **settings)
    assert 1 < len(stopped.epochs) < 40

    continued = Trained(digits, capsys, epochs=50, **settings)
    repeated = Trained(digits, capsys, epochs=50, **settings)

    assert continued.epochs == []
    assert f"Continuing after epoch {len(stopped.epochs)}, " in continued.printed
    assert repeated.epochs == stopped.epochs
    assert Trained(digits, capsys, epochs=40, **settings).epochs == stopped.epochs
    assert stopped.outputs == continued.outputs == repeated.outputs


@pytest.mark.usefixtures("eager")
def test_a_cosine_schedule_starts_from_scratch(digits, capsys):
    Trained(digits, capsys, epochs=2, schedule="cosine")

    assert finished_states() == {}
    assert Trained(digits, capsys, epochs=4, schedule="cosine").epochs == [1, 2, 3, 4]
    # Nor does it go on from a constant one.
    Trained(digits, capsys, epochs=2)
    assert Trained(digits, capsys, epochs=3, schedule="cosine").epochs == [1, 2, 3]


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


def test_the_number_of_threads_is_that_of_the_cores_and_at_least_two(monkeypatch):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    for cores, expected in (({3}, 2), ({0, 1}, 2), (set(range(8)), 8)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid, c=cores: c)
        assert threads.num_threads() == expected
    # As for experiments that share the cores.
    monkeypatch.setenv(threads.VARIABLE, "5")
    assert threads.num_threads() == 5
    for value in ("0", "two", "-1"):
        monkeypatch.setenv(threads.VARIABLE, value)
        with pytest.raises(InputError, match=f"{threads.VARIABLE}={value}: expected"):
            threads.num_threads()


@pytest.mark.slow
def test_a_network_of_mnists_size_has_the_same_weights_on_one_core_and_two():
    """Small products are summed up in one go, whatever the number of threads."""
    code = (
        "import stages, numpy as np, tensorflow as tf; "
        "from core_mlp.training import device; device.set_up_device(); "
        "draw = tf.random.stateless_normal; "
        "a, b = draw([128, 784], [0, 1]), draw([784, 700], [0, 2]); "
        "f = tf.function(lambda: [a @ b, tf.transpose(a) @ (a @ b)], jit_compile=True)"
        "; "
        "print(hash(b''.join(x.numpy().tobytes() for x in f())))"
    )
    found = {
        run(
            *("taskset", "--cpu-list", cores, "python", "-c", code),
            cwd=ROOT,
            PYTHONHASHSEED="0",
        ).split()[-1]
        for cores in ("0", "0,1")
    }
    assert len(found) == 1
