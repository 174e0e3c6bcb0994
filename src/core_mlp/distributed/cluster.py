"""The processes that train one model together, and their addresses."""

import json
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from core_mlp.pipeline.errors import InputError, first_line

# The task types of TF_CONFIG that take part in training, the chief first.
TASK_TYPES = ("chief", "worker")


class Address(NamedTuple):
    """Where a worker listens."""

    host: str
    port: int


class Workers(NamedTuple):
    """The processes that train one model; the first is the chief.

    Attributes:
      names: Number and `host:port` of each; empty if there is only one.
      index: Number of this process; the chief is 0.
      strategy: How replicas are distributed; None on one device.
    """

    names: Sequence[str]
    index: int
    strategy: tf.distribute.Strategy | None = None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0

    @property
    def key(self) -> list[str]:
        """Identifies this process's saved state; only the chief writes it."""
        number = self.strategy.num_replicas_in_sync if self.strategy else 1
        return [f"{number} replicas", f"worker {self.index} of {len(self.names) or 1}"]


def find_workers() -> Workers:
    """Reads `$TF_CONFIG`; under srun, sets it from Slurm's variables first.

    Raises:
      InputError: If it is not valid, this process is neither chief nor worker, or its
        port is in use.
    """
    try:
        read_slurm()
    # TensorFlow's resolver raises these if one of Slurm's variables is malformed.
    except (ValueError, LookupError, RuntimeError, OSError) as error:
        raise InputError(f"SLURM_*: not valid: {first_line(error)}") from error
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        cluster = config.get("cluster") or {}
        task = config.get("task") or {}
        addresses = [name for kind in TASK_TYPES for name in cluster.get(kind, [])]
        names = [f"worker {n}, {name}" for n, name in enumerate(addresses)]
        kind = "master" if "master" in cluster else task.get("type", "worker")
        if kind not in TASK_TYPES:
            # For example master, TensorFlow's older name for the chief.
            allowed = " or ".join(TASK_TYPES)
            raise InputError(
                f"TF_CONFIG: not valid: task type {kind!r}: expected {allowed}"
            )
        if len(names) < 2:
            return Workers([], 0)
        index = int(task["index"])
        if not 0 <= index < len(cluster[kind]):
            raise LookupError(f"there is no {kind} {index}")
        if kind == "worker":
            index += len(cluster.get("chief", []))
        # Fails if the port is in use; TensorFlow would share it.
        listen(address_of(names[index]).port).close()
    except OSError as error:
        raise InputError(f"{names[index]}: {error}") from error
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise InputError(f"TF_CONFIG: not valid: {error!r}") from error
    return Workers(names, index)


def read_slurm() -> None:
    """Sets `$TF_CONFIG` if srun runs several tasks, unless it is already set."""
    num_tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS") or 1)
    if num_tasks < 2 or "TF_CONFIG" in os.environ:
        return
    # Slurm itself gives each task its GPUs: these numbers only limit the tasks.
    slurm = tf.distribute.cluster_resolver.SlurmClusterResolver(
        gpus_per_node=num_tasks, gpus_per_task=1, auto_set_gpu=False
    )
    cluster = slurm.cluster_spec().as_dict()
    task = {"type": slurm.task_type, "index": slurm.task_id}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})


def listen(port: int) -> socket.socket:
    """Listens on a port, for IPv6 too if the machine supports it."""
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


def address_of(name: str) -> Address:
    """Returns a worker's host and port, parsed from the end of its name."""
    host, _, port = name.split()[-1].rpartition(":")
    return Address(host.strip("[]"), int(port))  # An IPv6 address is in brackets.
