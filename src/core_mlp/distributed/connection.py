"""Joins the processes that train one model, and ends them all if one is lost."""

import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import tensorflow as tf

from core_mlp.distributed.cluster import (
    Workers,
    address_of,
    find_workers,
    listen,
    probe,
)
from core_mlp.pipeline.errors import InputError, first_line
from core_mlp.results.train import EpochResult
from core_mlp.training import resume

PROBE_SECONDS = 1.0
# A worker that joins cannot be reached for a moment: it has stopped listening, and
# TensorFlow has not started to. Longer than this, it is lost.
JOIN_SECONDS = 20.0
SUM = tf.distribute.ReduceOp.SUM


def wait_seconds() -> float:
    """Returns how long to wait for other workers; raises InputError if not valid."""
    text = os.environ.get("CORE_MLP_WAIT_SECONDS") or "300"
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.0 < seconds < math.inf:
        raise InputError(f"CORE_MLP_WAIT_SECONDS = {text}: expected seconds above 0")
    return seconds


@contextmanager
def connect(run: Mapping[str, str]) -> Iterator[Workers]:
    """Joins the other workers, if any; leaves once all have finished the block.

    Inside the block, variables are created on every device. The process ends with one
    line if a worker does not join within `$CORE_MLP_WAIT_SECONDS`, or is lost.

    Args:
      run: What determines the result, from `resume.describe_run`.

    Raises:
      InputError: If `run` differs between the workers, or they lose each other.
    """
    workers = find_workers()
    if not workers.names:
        strategy = find_local_strategy()
        with strategy.scope() if strategy else nullcontext():
            yield workers._replace(strategy=strategy)
        return
    own = workers.names[workers.index]
    others = [name for name in workers.names if name != own]
    print(f"Waiting for {'; '.join(others)}", flush=True)
    limit = wait_seconds()
    wait_until_reachable(others, own, limit)
    process = os.getpid()
    have_joined = multiprocessing.Event()
    are_done = multiprocessing.Event()
    # A process, not a thread: TensorFlow blocks all Python threads while it waits.
    watcher = os.fork()
    if watcher == 0:
        watch_others(
            others, process, have_joined=have_joined, are_done=are_done, limit=limit
        )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        have_joined.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # TensorFlow would ignore it.
        check_same_run(strategy, run, workers, are_done)
        with strategy.scope():
            yield workers._replace(strategy=strategy)
        wait_for_all(strategy, are_done)
    except tf.errors.OpError as error:
        time.sleep(10 * PROBE_SECONDS)  # Lets the watcher say who is lost.
        problem = first_line(error)
        raise InputError(f"the workers have lost each other: {problem}") from error
    finally:
        os.kill(watcher, signal.SIGKILL)


def find_local_strategy() -> tf.distribute.Strategy | None:
    """Returns a strategy for this process's GPUs, or else CPUs; None for only one."""
    found = tf.config.list_logical_devices("GPU")
    found = found or tf.config.list_logical_devices("CPU")
    if len(found) == 1:
        return None
    return tf.distribute.MirroredStrategy([device.name for device in found])


def wait_until_reachable(others: Sequence[str], own: str, limit: float) -> None:
    """Waits until every other worker listens at its address, as this one does.

    TensorFlow would wait too, but could not be ended by Ctrl-C or SIGTERM meanwhile.

    Raises:
      InputError: If a worker does not listen within `limit` seconds.
    """
    start = time.monotonic()
    missing = list(others)
    with listen(address_of(own).port) as listener:
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


def watch_others(
    others: Sequence[str],
    process: int,
    *,
    have_joined: Event,
    are_done: Event,
    limit: float,
) -> None:
    """Kills a process with one line when another worker does not join, or is lost.

    Args:
      others: The other workers, by name.
      process: ID of the process to kill.
      have_joined: Set once all workers have joined.
      are_done: Set once all workers are done; then they may end.
      limit: Seconds to wait until all have joined.
    """

    def kill(*_) -> None:
        # Let the others see the failure before this process is gone.
        time.sleep(3 * PROBE_SECONDS)
        if os.getppid() == process:
            os.kill(process, signal.SIGKILL)
        os._exit(1)

    # While TensorFlow waits, neither Ctrl-C nor SIGTERM ends it.
    signal.signal(signal.SIGINT, kill)
    signal.signal(signal.SIGTERM, kill)
    start = time.monotonic()
    last_reached = {}
    while os.getppid() == process and not are_done.is_set():
        patience = 0.0 if have_joined.is_set() else JOIN_SECONDS
        now = time.monotonic()
        errors = {}
        for name in others:
            if error := probe(name):
                errors[name] = error
            else:
                last_reached[name] = now
        lost = [name for name in errors if now - last_reached.get(name, now) > patience]
        if are_done.is_set():
            break
        if lost:
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


def wait_for_all(strategy: tf.distribute.Strategy, are_done: Event) -> None:
    """Waits until every worker has reached this point, and sets `are_done`."""
    strategy.reduce(SUM, tf.zeros([]), axis=None)
    are_done.set()
    # A worker that gets here has the first reduction's result.
    with suppress(tf.errors.OpError):
        strategy.reduce(SUM, tf.zeros([]), axis=None)


def check_same_run(
    strategy: tf.distribute.Strategy,
    run: Mapping[str, str],
    workers: Workers,
    are_done: Event,
) -> None:
    """Raises InputError on every worker if one's run differs from the chief's.

    Args:
      strategy: Strategy of all workers.
      run: What determines the result, from `resume.describe_run`.
      workers: The workers, and which one this is.
      are_done: Event to set before the error is raised.
    """
    table = np.zeros([len(workers.names), len(run)], np.int64)
    table[workers.index] = [int(digest[:15], 16) for digest in run.values()]
    table = strategy.reduce(SUM, tf.constant(table), axis=None).numpy()
    for name, is_other in zip(workers.names, table != table[0], strict=True):
        if is_other.any():
            wait_for_all(strategy, are_done)
            others = ", ".join(np.array(list(run))[is_other])
            raise InputError(f"{name}: differs from the chief's: {others}")


def restore_state(
    workers: Workers, path: Path, modules: Sequence[tf.Module], num_epochs: int
) -> list[EpochResult]:
    """Restores the state of training on the chief, and sends it to all workers."""
    history = resume.restore_state(path, modules)
    if not workers.names:
        return history
    # A new variable gets the chief's value on every worker.
    for variable in resume.all_variables(modules):
        variable.assign(tf.Variable(variable.numpy()).numpy())
    rows = np.zeros([num_epochs, len(EpochResult._fields)])
    rows[: len(history)] = np.reshape(history, [-1, rows.shape[1]])
    rows = tf.Variable(rows).numpy()
    return resume.results_of(rows[rows[:, 0] > 0])
