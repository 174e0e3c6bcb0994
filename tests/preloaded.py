"""Runs commands of the tests in forks of a process that has imported TensorFlow.

Importing TensorFlow, DVC and the rest takes up to ten seconds, and the tests run
hundreds of stages. Each still has a process of its own, which imports the code of its
own repository; only what is installed is shared.

A test that kills processes or measures their start needs `helpers.start`, which runs
the real commands. So do all tests without pytest-xdist (`pytest -n0`).
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path

COMMANDS = ("python", "dvc", "core-mlp")
PRELOADED = (
    "ai_edge_litert.interpreter",
    "dvc.cli",
    "dvc.commands.experiments.run",
    "dvc.commands.repro",
    "dvc.repo",
    "gradio",
    "jinja2",
    "markdown_it",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "pandas",
    "platformdirs",
    "pydantic",
    "scipy.ndimage",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.metrics",
    "tensorflow",
)
POLL_SECONDS = 0.02
MAX_REQUEST = 2**20
# Stands in for a command: passes on what it was started with, and waits.
STAND_IN = """\
#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
command, *arguments = sys.argv
command = os.path.basename(command)
# Code in an argument may look at anything, such as on how many cores it runs.
if command == "python" and arguments[0].startswith("-") and arguments[0] != "-m":
    os.execv({python!r}, [{python!r}, *arguments])
request = [command, arguments, os.getcwd(), dict(os.environ)]
content = json.dumps(request).encode()
socket.send_fds(server, [len(content).to_bytes(4, "big")], [0, 1, 2])
server.sendall(content)
sys.exit(int(server.recv(16) or b"1"))
"""


class Server:
    """The process that is forked; its commands are in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Starts it; commands wait until it has imported everything."""
        self.folder = folder
        self.listener = socket.socket(socket.AF_UNIX)
        address = folder / "socket"
        self.listener.bind(str(address))
        self.listener.listen(64)
        for name in COMMANDS:
            path = folder / name
            path.write_text(
                STAND_IN.format(python=sys.executable, address=str(address))
            )
            path.chmod(0o755)
        descriptor = self.listener.fileno()
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(descriptor)],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_USE_LEGACY_KERAS": "1"},
        )

    def stop(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.wait()
        self.listener.close()


def serve(listener: socket.socket) -> list:
    """Forks a process for each request; returns the request in that process."""
    parent = os.getppid()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Children are not waited for here.
    while os.getppid() == parent:
        if not select.select([listener], [], [], 1.0)[0]:
            continue
        connection, _ = listener.accept()
        if os.fork():
            connection.close()
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        listener.close()
        request, descriptors = receive(connection)
        runner = os.fork()
        if runner:
            wait(runner, connection)
        connection.close()
        os.setsid()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.stderr.reconfigure(line_buffering=True)
        return request
    sys.exit()


def receive(connection: socket.socket) -> tuple[list, list[int]]:
    """Receives a request, and the descriptors of stdin, stdout and stderr."""
    length, descriptors, _, _ = socket.recv_fds(connection, 4, 3)
    content = b""
    while len(content) < int.from_bytes(length, "big"):
        content += connection.recv(MAX_REQUEST)
    return json.loads(content), descriptors


def wait(runner: int, connection: socket.socket) -> None:
    """Waits for a process and reports its exit code; kills it if nobody waits."""
    pid = 0
    while not pid:
        pid, status = os.waitpid(runner, os.WNOHANG)
        if not pid and select.select([connection], [], [], POLL_SECONDS)[0]:
            os.killpg(runner, signal.SIGKILL)
            os._exit(1)
    code = os.waitstatus_to_exitcode(status)
    with suppress(OSError):
        connection.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def run(command: str, arguments: list[str], folder: str, environment: dict) -> None:
    """Runs a command in this process, as if it had just started."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    if command == "python":
        if arguments[0] == "-m":
            sys.path[0] = folder
            sys.argv = arguments[1:]
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path[0] = str(Path(folder, arguments[0]).parent)
            sys.argv = arguments
            runpy.run_path(sys.argv[0], run_name="__main__")
        return
    del sys.path[0]
    sys.argv = [str(Path(sys.executable).with_name(command)), *arguments]
    if command == "dvc":
        from dvc.cli import main
    else:
        from core_mlp.cli import main
    sys.exit(main())


if __name__ == "__main__":
    listening = socket.socket(fileno=int(sys.argv[1]))
    for name in PRELOADED:
        __import__(name)
    # Otherwise each fork would copy what the garbage collector touches.
    gc.collect()
    gc.freeze()
    request = serve(listening)
    try:
        run(*request)
        code = 0
    except SystemExit as end:
        sys.stdout.flush()
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    # What Python does when it exits, except for freeing all objects one by one.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
