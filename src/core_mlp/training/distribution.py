"""Synchronous training on several devices or machines, by `tf.distribute`.

Every replica has all variables and takes its share of each batch; the gradients are
summed over replicas, and each applies the same update.
"""

import json
import math
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from core_mlp.pipeline.stage import InputError, first_line
from core_mlp.training import loop, resume
from core_mlp.training.input_pipeline import Examples

PROBE_SECONDS = 1.0
# Of the types of tasks in TF_CONFIG, those that train here; the chief comes first.
TASK_TYPES = ("chief", "worker")
SUM = tf.distribute.ReduceOp.SUM


class Workers(NamedTuple):
    """The processes that train one model; the first is the chief.

    Attributes:
      names: Number and `host:port` of each; empty if there is but one.
      index: This process.
      strategy: None on one device.
    """

    names: Sequence[str]
    index: int
    strategy: tf.distribute.Strategy | None = None

    @property
    def key(self) -> list[str]:
        """Tells this process's saved state from others; only the chief writes it."""
        number = self.strategy.num_replicas_in_sync if self.strategy else 1
        return [f"{number} replicas", f"worker {self.index} of {len(self.names) or 1}"]


def find_workers() -> Workers:
    """Reads `$TF_CONFIG`, which is set to what Slurm says under srun.

    Raises:
      InputError: If it is not valid, this process is neither chief nor worker, or its
        port is in use.
    """
    try:
        read_slurm()
    # What TensorFlow's reader of Slurm's variables raises when one is odd.
    except (ValueError, LookupError, RuntimeError, OSError) as error:
        raise InputError(f"SLURM_*: not valid: {first_line(error)}") from error
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        cluster, task = config.get("cluster") or {}, config.get("task") or {}
        addresses = [name for kind in TASK_TYPES for name in cluster.get(kind, [])]
        names = [f"worker {n}, {name}" for n, name in enumerate(addresses)]
        kind = "master" if "master" in cluster else task.get("type", "worker")
        if kind not in TASK_TYPES:
            # Such as master, TensorFlow's older name of the chief.
            allowed = " or ".join(TASK_TYPES)
            raise InputError(
                f"TF_CONFIG: not valid: task type {kind!r}: expected {allowed}"
            )
        if len(names) < 2:
            return Workers([], 0)
        index = int(task["index"])
        if not 0 <= index < len(cluster[kind]):
            raise LookupError(f"there is no {kind} {index}")
        index += len(cluster.get("chief", [])) if kind == "worker" else 0
        listen(address_of(names[index])[1]).close()  # TensorFlow would share a port.
    except OSError as error:
        raise InputError(f"{names[index]}: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise InputError(f"TF_CONFIG: not valid: {error!r}") from error
    return Workers(names, index)


def read_slurm() -> None:
    """Sets `$TF_CONFIG` where srun runs several tasks, unless it is set."""
    num_tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if num_tasks < 2 or "TF_CONFIG" in os.environ:
        return
    # Slurm itself gives each task its GPUs: these numbers only bound the tasks.
    slurm = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=num_tasks, gpus_per_task=1, auto_set_gpu=False
    )
    cluster = slurm.cluster_spec().as_dict()
    task = {"type": slurm.task_type, "index": slurm.task_id}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})


def wait_seconds() -> float:
    """Returns how long to wait for other workers; raises InputError if not valid."""
    text = os.environ.get("CORE_MLP_WAIT_SECONDS") or "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise InputError(f"CORE_MLP_WAIT_SECONDS = {text}: expected seconds, above 0")
    return seconds


@contextmanager
def connect(facts: Mapping[str, str]) -> Iterator[Workers]:
    """Joins the other workers, if there are any, until all are done with the block.

    In it, variables are created on every device. The process ends with one line if a
    worker does not come within `$CORE_MLP_WAIT_SECONDS`, or is lost.

    Raises:
      InputError: If a worker has other facts, from `resume.run_facts`, or the workers
        lose each other.
    """
    workers = find_workers()
    if not workers.names:
        kinds = map(tf.config.list_logical_devices, ("GPU", "CPU"))
        devices = [device.name for device in next(filter(None, kinds))]
        strategy = tf.distribute.MirroredStrategy(devices) if devices[1:] else None
        with strategy.scope() if strategy else nullcontext():
            yield workers._replace(strategy=strategy)
        return
    others = [name for name in workers.names if name != workers.names[workers.index]]
    print(f"Waiting for {'; '.join(others)}", flush=True)
    limit = wait_seconds()
    wait_until_reachable(others, workers.names[workers.index], limit)
    process, have_joined = os.getpid(), multiprocessing.Event()
    # A process, not a thread: TensorFlow blocks all Python threads while it waits.
    if not (watcher := os.fork()):
        watch_others(others, process, have_joined, limit)
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        have_joined.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow would ignore it.
        check_facts(strategy, facts, workers)
        with strategy.scope():
            yield workers._replace(strategy=strategy)
        wait_for_all(strategy)
    except tf.errors.OpError as error:
        time.sleep(10 * PROBE_SECONDS)  # The watcher can say who is lost.
        problem = first_line(error)
        raise InputError(f"the workers have lost each other: {problem}") from error
    finally:
        os.kill(watcher, signal.SIGKILL)


def wait_until_reachable(others: Sequence[str], own: str, limit: float) -> None:
    """Waits until every other worker listens at its address, as this one does.

    TensorFlow would wait, too, but neither Ctrl-C nor SIGTERM ends it while it does.

    Raises:
      InputError: If a worker does not listen within `limit` seconds.
    """
    start, missing = time.monotonic(), list(others)
    with listen(address_of(own)[1]) as listener:
        listener.setblocking(False)
        while True:
            with suppress(BlockingIOError):  # The others' probes.
                while True:
                    listener.accept()[0].close()
            errors = {name: error for name in missing if (error := probe(name))}
            missing = list(errors)
            if not missing:
                return
            if time.monotonic() - start > limit:
                name, error = next(iter(errors.items()))
                raise InputError(f"{name}: did not join within {limit:g} s: {error}")
            time.sleep(PROBE_SECONDS)


def listen(port: int) -> socket.socket:
    """Listens at a port, for IPv6 too where the machine has it."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, dualstack_ipv6=True
        )
    return socket.create_server(("", port))


def probe(name: str) -> Exception | None:
    """Returns why a worker cannot be reached, or None if it can."""
    try:
        socket.create_connection(address_of(name), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        return error
    return None


def address_of(name: str) -> tuple[str, int]:
    """Returns host and port of a worker, whose name ends with them."""
    host, _, port = name.split()[-1].rpartition(":")
    return host.strip("[]"), int(port)  # An IPv6 address is in brackets.


def watch_others(
    others: Sequence[str], process: int, have_joined: Event, limit: float
) -> None:
    """Kills a process with one line when another worker does not join, or is lost.

    Args:
      others: The other workers, by name.
      process: What to kill.
      have_joined: Is set once all workers have joined.
      limit: Seconds to wait for that.
    """

    def kill(*_) -> None:
        # The others shall see the same, before this process is gone too.
        time.sleep(3 * PROBE_SECONDS)
        if os.getppid() == process:
            os.kill(process, signal.SIGKILL)
        os._exit(1)

    # Ctrl-C or SIGTERM: TensorFlow, while it waits, ends at neither.
    signal.signal(signal.SIGINT, kill)
    signal.signal(signal.SIGTERM, kill)
    start, seen = time.monotonic(), set()
    while os.getppid() == process:
        errors = {}
        for name in others:
            if error := probe(name):
                errors[name] = error
            else:
                seen.add(name)
        if lost := [name for name in errors if name in seen]:
            name, problem = lost[0], "has ended or cannot be reached"
        elif not have_joined.is_set() and time.monotonic() - start > limit:
            name = next(iter(errors), others[0])
            problem = f"did not join within {limit:g} s"
        else:
            time.sleep(PROBE_SECONDS)
            continue
        error = errors.get(name, "another program may use its port")
        print(f"error: {name}: {problem}: {error}", file=sys.stderr, flush=True)
        kill()
    os._exit(0)


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Waits until every worker has come here."""
    strategy.reduce(SUM, tf.zeros([]), axis=None)
    with suppress(tf.errors.OpError):  # Who is here has the result of the first.
        strategy.reduce(SUM, tf.zeros([]), axis=None)


def check_facts(
    strategy: tf.distribute.Strategy, facts: Mapping[str, str], workers: Workers
) -> None:
    """Raises InputError on every worker if the facts of one are not the chief's."""
    table = np.zeros([len(workers.names), len(facts)], np.int64)
    table[workers.index] = [int(digest[:15], 16) for digest in facts.values()]
    table = strategy.reduce(SUM, tf.constant(table), axis=None).numpy()
    for name, is_other in zip(workers.names, table != table[0], strict=True):
        if is_other.any():
            wait_for_all(strategy)
            others = ", ".join(np.array(list(facts))[is_other])
            raise InputError(f"{name}: differs from the chief's: {others}")


def restore_state(
    workers: Workers, path: Path, modules: Sequence[tf.Module], num_epochs: int
) -> list[loop.EpochMetrics]:
    """Restores the state of training on the chief, and gives it to all workers."""
    history = resume.restore_state(path, modules)
    if not workers.names:
        return history
    # A new variable has the chief's value on every worker.
    for variable in [v for module in modules for v in module.variables]:
        variable.assign(tf.Variable(variable.numpy()).numpy())
    rows = np.zeros([num_epochs, len(loop.EpochMetrics._fields)])
    rows[: len(history)] = np.reshape(history, [-1, rows.shape[1]])
    rows = tf.Variable(rows).numpy()
    return loop.EpochMetrics.from_rows(rows[rows[:, 0] > 0])


def compile_functions(strategy: tf.distribute.Strategy | None) -> loop.Functions | None:
    """Compiles the epoch and the evaluation for several replicas; None is for one."""
    if not strategy:
        return None
    print(f"{strategy.num_replicas_in_sync} devices train together", flush=True)
    xla = partial(tf.function, jit_compile=True)
    num_replicas = strategy.num_replicas_in_sync
    context = tf.distribute.get_replica_context

    def share(replica: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
        """Returns a replica's part of the last axis, padded with zeros."""
        *sizes, size = values.shape
        padding = [*([[0, 0]] * len(sizes)), [0, -size % num_replicas]]
        values = tf.reshape(tf.pad(values, padding), [*sizes, -1, num_replicas])
        return values[..., replica]

    # XLA has no collectives on a CPU: what is around them is compiled.
    @xla
    def compute_gradients(replica, model, examples, indices, weights, seed, augment):
        seed = augment and tf.random.fold_in(seed, replica)
        batch = indices, weights, seed, augment
        return loop.compute_gradients(model, examples, *batch, partial(share, replica))

    @xla
    def apply_gradients(model, optimizer, gradients):
        optimizer.apply_gradients(gradients, model.trainable_variables)

    @xla
    def evaluate(replica, model, examples):
        return loop.evaluate(model, examples, share=partial(share, replica))

    def sum_over_replicas(function, *args):
        results = function(context().replica_id_in_sync_group, *args)
        return context().all_reduce(SUM, results)

    def run(function, *args):
        results = strategy.run(function, args)
        return tuple(strategy.experimental_local_results(v)[0] for v in results)

    def take_step(model, optimizer, examples, *batch):
        def step(examples):
            args = compute_gradients, model, examples, *batch
            gradients, *sums = sum_over_replicas(*args)
            apply_gradients(model, optimizer, gradients)
            return sums

        return run(step, examples)

    def train_epoch(model, optimizer, examples, *args):
        # They are copied to each device once, not in every step.
        examples = strategy.run(lambda: Examples(*map(tf.identity, examples)))
        train = partial(loop.train_epoch, take_step=take_step)
        return train(model, optimizer, examples, *args)

    def evaluate_all(model, examples):
        return run(lambda: sum_over_replicas(evaluate, model, examples))

    return tf.function(train_epoch), tf.function(evaluate_all)
