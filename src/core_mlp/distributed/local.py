"""Several workers on this machine, to try distributed training."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress

from core_mlp.pipeline.errors import InputError


def run_workers(number: int, command: Sequence[str]) -> None:
    """Runs a command as the chief, and the train stage as every other worker.

    Raises:
      InputError: If there are fewer than two workers, or the command fails.
    """
    if number < 2:
        raise InputError(f"N = {number}: expected 2 or more workers")
    if command[0] == "dvc":  # The data must exist before the workers start.
        prepare = ["dvc", "repro", "--quiet", "preprocess"]
        if subprocess.run(prepare, check=False).returncode:
            raise InputError("dvc repro preprocess failed")
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    processes = []
    for index in range(number):
        task = {"type": "worker", "index": index}
        config = json.dumps({"cluster": {"worker": addresses}, "task": task})
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.train"] if index else command,
            env={"CORE_MLP_WAIT_SECONDS": "60"} | os.environ | {"TF_CONFIG": config},
            stdout=subprocess.DEVNULL if index else None,
        )
        processes.append(process)
    code = processes[0].wait()
    for process in processes[1:]:
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
    if code:
        raise InputError(f"{' '.join(command)}: exit code {code}")
