"""Several workers, or several devices of one, train the same model as one does."""

import json
import random
import re
import shutil
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import (
    ROOT,
    run,
    run_stages,
    start,
    start_preloaded,
    try_to_run,
    write_params,
)

from core_mlp.distributed import connection, local
from core_mlp.distributed.cluster import find_workers
from core_mlp.pipeline.errors import InputError
from core_mlp.training.checkpoints import read_checkpoint

PARAMS = {"epochs": 5, "batch_size": 50, "ema_decay": 0.9, "schedule": "cosine"}
SEARCH_PATH = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
WORKER = ("python", str(Path(__file__).with_name("worker.py")))
TWO_DEVICES = ("python", str(Path(__file__).with_name("two_devices.py")))
TRAIN = ("python", "-m", "stages.train")
OUTPUTS = ("models", "metrics", "plots/history.csv", "plots/activations.csv")


def new_folder(digits_dir, folder, **changes):
    shutil.copytree(digits_dir, folder)
    write_params(folder, **(PARAMS | changes))
    return folder


def start_workers(*folders, num_workers=None, state=None, start=start_preloaded):
    """Starts a worker in each folder; the first is the chief's.

    `helpers.start` starts processes that can be killed or interrupted.
    """
    servers = [
        socket.create_server(("127.0.0.1", 0))
        for _ in range(num_workers or len(folders))
    ]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    environment = SEARCH_PATH | {
        "CORE_MLP_STATE_DIR": str(state or folders[0] / "state")
    }
    processes = []
    for index, folder in enumerate(folders):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        process = start(*WORKER, cwd=folder, **environment, TF_CONFIG=config)
        processes.append(process)
    return processes, addresses


def ends(processes):
    return [process.communicate(timeout=60)[0] for process in processes]


def errors(output):
    assert "Traceback" not in output
    return re.findall("(?m)^error: .*", output)


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for name in OUTPUTS
        for path in [folder / name, *(folder / name).rglob("*")]
        if path.is_file()
    }


def history(folder):
    return np.loadtxt(folder / "plots/history.csv", delimiter=",", skiprows=1, ndmin=2)


def weights(folder):
    model, _ = read_checkpoint(folder / "models/checkpoint")
    return np.concatenate([variable.numpy().ravel() for variable in model.variables])


@pytest.fixture(scope="module")
def two_workers(digits_dir, tmp_path_factory):
    """A folder in which two workers have trained, started by `core-mlp workers`."""
    folder = new_folder(digits_dir, tmp_path_factory.mktemp("two") / "folder")
    command = ("python", "-m", "core_mlp.cli", "workers", "2", "--", *TRAIN)
    output = run(*command, cwd=folder, **SEARCH_PATH)
    assert "2 devices train together" in output
    return folder


def kill_when_trained(folders, victim, num_epochs, state):
    """Kills a worker after some epochs; returns what all have printed."""
    processes, addresses = start_workers(*folders, state=state, start=start)
    printed = []
    for line in processes[victim].stdout:
        printed.append(line)
        if line.startswith(f"Epoch {num_epochs}/"):
            break
    processes[victim].kill()
    outputs = ends(processes)
    for index, output in enumerate(outputs):
        if index != victim:
            assert processes[index].returncode != 0
            (line,) = errors(output)
            assert f"worker {victim}" in line
            assert addresses[victim] in line
    return outputs


def finish(folders, state):
    processes, _ = start_workers(*folders, state=state)
    outputs = ends(processes)
    assert [process.returncode for process in processes] == [0] * len(folders), outputs
    return outputs


@pytest.mark.slow
def test_a_killed_worker_ends_all_and_then_they_resume_to_the_same_bytes(
    digits_dir, two_workers, tmp_path
):
    folders = [new_folder(digits_dir, tmp_path / name) for name in ("chief", "other")]

    kill_when_trained(folders, 1, 2, tmp_path)
    outputs = finish(folders, tmp_path)

    assert re.search("Resuming after epoch [1-5],", outputs[0])
    assert snapshot(folders[0]) == snapshot(two_workers)
    # The weights are the same to the bit, and only the chief has written.
    hashes = [re.findall("weights (.*)", output) for output in outputs]
    assert hashes[0] == hashes[1] != []
    assert snapshot(folders[1]).keys() == snapshot(digits_dir).keys()


@pytest.mark.slow
def test_workers_go_on_from_a_shorter_run(digits_dir, tmp_path):
    outputs, snapshots = [], []
    for num_epochs, state in ((2, "state"), (4, "state"), (4, "empty")):
        changes = {"schedule": "constant", "patience": 4, "epochs": num_epochs}
        folder = tmp_path / f"{num_epochs} {state}"
        folders = [
            new_folder(digits_dir, folder / name, **changes)
            for name in ("chief", "other")
        ]
        outputs.append(finish(folders, tmp_path / state))
        snapshots.append(snapshot(folders[0]))

    _, continued, scratch = outputs
    assert "Continuing after epoch 2, from " in continued[0]
    for output in continued:
        assert re.findall("(?m)^Epoch (.)/4", output) == ["3", "4"]
    assert "Epoch 1/4" in scratch[0]
    # The weights are the same to the bit on both.
    assert len({*re.findall("weights (.*)", "".join(continued + scratch))}) == 1
    assert snapshots[1] == snapshots[2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_workers_killed_at_any_moment_cost_nothing_but_time(
    digits_dir, two_workers, tmp_path, monkeypatch, record_property, seed
):
    # Some are killed before they have joined.
    monkeypatch.setenv("CORE_MLP_WAIT_SECONDS", "10")
    folders = [new_folder(digits_dir, tmp_path / name) for name in ("chief", "other")]
    rng = random.Random(seed)
    for _ in range(5):
        processes, addresses = start_workers(*folders, state=tmp_path, start=start)
        victim = rng.randrange(2)
        time.sleep(rng.uniform(0, 8))
        processes[victim].kill()
        outputs = ends(processes)
        if processes[1 - victim].returncode:
            (line,) = errors(outputs[1 - victim])
            assert f"worker {victim}, {addresses[victim]}: " in line
        else:  # The victim, too, was done.
            assert "weights" in outputs[1 - victim]

    finish(folders, tmp_path)

    is_equal = snapshot(folders[0]) == snapshot(two_workers)
    record_property("faults", [f"chief or worker killed, {seed}", 5, 0, 5 * is_equal])
    assert is_equal


def test_several_workers_train_as_one_does(digits_dir, two_workers, tmp_path):
    alone = new_folder(digits_dir, tmp_path / "alone")

    run_stages(alone, "train")

    np.testing.assert_allclose(history(two_workers), history(alone), atol=5e-3)
    np.testing.assert_allclose(weights(two_workers), weights(alone), atol=1e-3)


@pytest.mark.slow
def test_two_devices_of_one_process_are_two_workers(digits_dir, two_workers, tmp_path):
    folder = new_folder(digits_dir, tmp_path / "devices")

    output = run(*TWO_DEVICES, cwd=folder, **SEARCH_PATH)

    assert snapshot(folder) == snapshot(two_workers)
    differences = json.loads(output.splitlines()[-1])
    assert differences.pop("augmented") == [True, True]
    for name, difference in differences.items():
        assert difference < (1e-6 if "float32" in name else 1e-2), name


@pytest.mark.slow
def test_three_workers_stream_and_distort_to_the_same_bytes(
    digits_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("STREAMED", "1")
    changes = {
        "conv_filters": [8],
        "precision": "bfloat16",
        "augmentation": {"rotation": 10.0},
    }
    runs = []
    for run_name in ("first", "second"):
        folders = [
            new_folder(digits_dir, tmp_path / run_name / name, **changes)
            for name in ("chief", "b", "c")
        ]
        outputs = finish(folders, tmp_path / run_name)
        assert "Streaming" in outputs[0]
        assert len({*re.findall("weights (.*)", "".join(outputs))}) == 1
        runs.append(snapshot(folders[0]))

    assert runs[0] == runs[1]
    alone = new_folder(digits_dir, tmp_path / "alone", **changes)
    run(*WORKER, cwd=alone, **SEARCH_PATH)
    np.testing.assert_allclose(
        history(folders[0])[-1], history(alone)[-1], atol=0.1
    )  # Other random draws: equal within the noise of seeds.


NETWORKS = """
ip netns add mlp_0 && ip netns add mlp_1 &&
ip link add mlp_0 netns mlp_0 type veth peer name mlp_1 netns mlp_1 &&
for n in 0 1; do
  ip -n mlp_$n address add 10.99.18.1$n/24 dev mlp_$n &&
  ip -n mlp_$n link set mlp_$n up &&
  ip -n mlp_$n link set lo up || exit 1
done
"""


@pytest.fixture
def networks():
    """Two network namespaces, connected by a virtual cable."""
    try:
        if try_to_run("sh", "-c", NETWORKS, cwd=ROOT).returncode:
            pytest.skip("network namespaces cannot be made by this user")
        yield ["mlp_0", "mlp_1"]
    finally:
        for name in ("mlp_0", "mlp_1"):
            try_to_run("sh", "-c", f"ip netns delete {name}", cwd=ROOT)


@pytest.mark.slow
def test_workers_in_two_networks_train_as_in_one(
    digits_dir, two_workers, tmp_path, networks
):
    cluster = {"worker": ["10.99.18.10:2222", "10.99.18.11:2222"]}
    folders = [new_folder(digits_dir, tmp_path / name) for name in networks]
    processes = []
    for index, name in enumerate(networks):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": cluster, "task": task})
        command = "ip", "netns", "exec", name, *WORKER
        processes.append(
            start(*command, cwd=folders[index], **SEARCH_PATH, TF_CONFIG=config)
        )

    outputs = ends(processes)

    assert [process.returncode for process in processes] == [0, 0], outputs
    assert snapshot(folders[0]) == snapshot(two_workers)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


WATCHED = """
import os, signal, socket, sys, time
from multiprocessing import Event
from core_mlp.distributed import connection

process, have_joined, are_done = os.getpid(), Event(), Event()
server = socket.create_server(("127.0.0.1", 0))
port = server.getsockname()[1]
if os.fork() == 0:
    server.close()
    connection.watch_others(
        [f"127.0.0.1:{port}"], process, have_joined=have_joined, are_done=are_done,
        limit=60.0,
    )
time.sleep(1.5)
server.close()
if "joined" in sys.argv:
    have_joined.set()
time.sleep(3)
server = socket.create_server(("127.0.0.1", port))
have_joined.set()
time.sleep(5)
are_done.set()
print("survived")
"""


def test_a_worker_may_be_unreachable_while_it_joins():
    joining, joined = (
        try_to_run("python", "-c", WATCHED, *arguments, cwd=ROOT)
        for arguments in ((), ("joined",))
    )

    assert joining.returncode == 0, joining.stdout
    assert "survived" in joining.stdout
    assert joined.returncode == -signal.SIGKILL
    assert ": has ended or cannot be reached: " in joined.stdout


def test_fewer_than_two_workers_are_refused():
    with pytest.raises(InputError, match="N = 1: expected 2 or more workers"):
        local.run_workers(1, ["dvc", "repro"])


def test_one_worker_is_none(monkeypatch):
    for config in ("", "{}", '{"cluster": {"worker": ["a:1"]}, "task": {}}'):
        monkeypatch.setenv("TF_CONFIG", config)
        assert find_workers() == ([], 0, None)


def test_the_chief_comes_before_the_other_workers(monkeypatch):
    cluster = {"worker": ["b:1", f"c:{free_port()}"], "chief": ["a:1"], "ps": ["d:1"]}
    task = {"type": "worker", "index": 1}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))

    workers = find_workers()

    assert workers.index == 2
    assert [name.split(":")[0] for name in workers.names] == [
        "worker 0, a",
        "worker 1, b",
        "worker 2, c",
    ]


def test_slurm_tells_the_workers(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "")
    monkeypatch.delenv("TF_CONFIG")
    for key, value in {
        "SLURM_STEP_NUM_TASKS": "3",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURM_PROCID": "2",
    }.items():
        monkeypatch.setenv(key, value)

    workers = find_workers()

    assert workers.index == 2
    assert workers.names == [
        "worker 0, node1:8888",
        "worker 1, node1:8889",
        "worker 2, node2:8888",
    ]


@pytest.mark.parametrize(
    "config",
    [
        "nonsense",
        "[1]",
        '{"cluster": {"worker": [1, 2]}}',
        '{"cluster": {"worker": ["a:70000", "b:1"]}, "task": {"type": "", "index": 0}}',
        '{"cluster": 3}',
        '{"cluster": {"worker": 3}}',
    ],
)
def test_a_tf_config_that_is_not_valid_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)

    with pytest.raises(InputError, match=r"^TF_CONFIG: not valid: "):
        find_workers()


@pytest.mark.parametrize(
    ("cluster", "kind", "index"),
    [
        ({"master": ["a:1"], "worker": ["b:1"]}, "worker", 0),
        ({"master": ["a:1"]}, "master", 0),
        ({"worker": ["a:1", "b:1"], "ps": ["c:1"]}, "ps", 0),
        ({"worker": ["a:1", "b:1"]}, "evaluator", 0),
        ({"worker": ["a:1", "b:1"]}, "chief", 0),
        ({"worker": ["a:1", "b:1"]}, "worker", -1),
        ({"worker": "a:1"}, "worker", 5),
    ],
)
def test_a_task_that_cannot_train_is_refused(monkeypatch, cluster, kind, index):
    """It would train alone, or as another worker."""
    task = {"type": kind, "index": index}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))

    with pytest.raises(InputError, match=r"^TF_CONFIG: not valid: "):
        find_workers()


@pytest.mark.parametrize("tasks", ["", "1"])
def test_without_several_tasks_slurm_tells_nothing(monkeypatch, tasks):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)

    assert find_workers() == ([], 0, None)


@pytest.mark.parametrize("tasks", ["two", "3"])
def test_what_slurm_does_not_tell_is_one_line(monkeypatch, tasks):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", tasks)

    with pytest.raises(InputError, match=r"^SLURM_\*: not valid: "):
        find_workers()


@pytest.mark.parametrize("text", ["abc", "-1", "0", "nan", "inf"])
def test_a_time_to_wait_that_is_not_valid_is_refused(monkeypatch, text):
    monkeypatch.setenv("CORE_MLP_WAIT_SECONDS", text)

    with pytest.raises(InputError, match=f"CORE_MLP_WAIT_SECONDS = {text}: expected"):
        connection.wait_seconds()


def test_a_port_in_use_is_refused(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        config = {
            "cluster": {"worker": [address, "b:1"]},
            "task": {"type": "worker", "index": 0},
        }
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))

        with pytest.raises(InputError, match=f"^worker 0, {address}: .*in use"):
            find_workers()


def test_a_worker_with_other_parameters_is_refused_by_all(digits_dir, tmp_path):
    chief = new_folder(digits_dir, tmp_path / "chief")
    other = new_folder(digits_dir, tmp_path / "other", learning_rate=0.01)

    processes, addresses = start_workers(chief, other)
    outputs = ends(processes)

    line = f"error: worker 1, {addresses[1]}: differs from the chief's: parameters"
    assert [errors(output) for output in outputs] == [[line], [line]]
    assert [process.returncode for process in processes] == [1, 1]
    assert not (chief / "models").exists()


def test_a_worker_that_does_not_come_is_named(digits_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("CORE_MLP_WAIT_SECONDS", "4")
    nobody, another_program = (
        start_workers(new_folder(digits_dir, tmp_path / name), num_workers=2)
        for name in ("nobody", "another program")
    )
    host, port = another_program[1][1].split(":")
    with socket.create_server((host, int(port))):
        outputs = ends([*nobody[0], *another_program[0]])

    for output, (_, addresses), reason in zip(
        outputs,
        (nobody, another_program),
        ("[Errno 111] Connection refused", "another program may use its port"),
        strict=True,
    ):
        (line,) = errors(output)
        assert f"worker 1, {addresses[1]}: did not join within 4 s: {reason}" in line


def test_a_worker_that_waits_can_be_interrupted(digits_dir, tmp_path):
    signals = signal.SIGINT, signal.SIGTERM
    folders = [new_folder(digits_dir, tmp_path / number.name) for number in signals]
    processes = [
        start_workers(folder, num_workers=2, start=start)[0][0] for folder in folders
    ]
    for process, number in zip(processes, signals, strict=True):
        for line in process.stdout:
            if line.startswith("Waiting for worker 1, 127.0.0.1:"):
                break
        time.sleep(1)
        process.send_signal(number)

    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode != 0
