"""Runs experiments of DVC, several at a time; what has run before is not run again."""

import functools
import hashlib
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol, Self

from tqdm import tqdm

from core_mlp.experiments.copies import Copy, Snapshot, make_copies
from core_mlp.experiments.settings import to_options
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.text import visible
from core_mlp.reporting.git import run_git
from core_mlp.reporting.runs import Run, read_run
from core_mlp.training import threads

LOGS = Path(".dvc/tmp/logs")
POLL_SECONDS = 0.2
# Files that no stage reads: they may change without another run.
NO_INPUTS = re.compile(
    r"(metrics|plots|docs|tests|recipes|searches|benchmarks|\.github|\.ci)/"
    r"|dvc\.lock$|.*\.md$"
)
# What a line of a log says about progress.
PROGRESS = re.compile(rb"^Epoch .*/s$", re.M)
MAX_NAME = 40
LOG_TAIL = 2**14


class Observer(Protocol):
    """Follows a training run, and may stop it; each method gets the copy's folder."""

    # Where train keeps the state from which it resumes; deleted when it has ended.
    state_folder: Path

    def is_hopeless(self, project: Path) -> bool:
        """Is called while it runs, from the end of its first epoch; True stops it."""

    def end(self, project: Path) -> None:
        """Is called when it has succeeded."""


class Task(NamedTuple):
    """An experiment to run.

    Attributes:
      label: What people read, such as "seed 3 of main".
      snapshot: The files that it starts with.
      settings: What it changes in params.yaml, each as KEY=VALUE.
      observer: Follows the run. If there is one, only train and the stages before it
        run, and the results stay in the copy.
      program: A module and its arguments, which run in place of DVC. The task has an
        observer then, and no settings.
    """

    label: str
    snapshot: Snapshot
    settings: tuple[str, ...]
    observer: Observer | None = None
    program: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The experiment's name: the same for the same files and settings."""
        words = [*sorted(self.settings), *self.program]
        content = "\n".join([hash_inputs(self.snapshot.tree), *words])
        digest = hashlib.sha256(content.encode()).hexdigest()[:10]
        readable = re.sub(r"\W+", "-", "-".join(words).replace(".", "_"))
        return f"{readable[:MAX_NAME]}-{digest}"

    @property
    def command(self) -> tuple[str, ...]:
        """What runs in a copy: a module and its arguments."""
        if self.program:
            return self.program
        command = ("dvc", "exp", "run", "--name", self.name, *to_options(self.settings))
        return (*command, "train") if self.observer else command


class Outcome(NamedTuple):
    """What became of a task.

    Attributes:
      task: The task.
      run: Its results; None if it failed, or if an observer has them.
      error: Why it failed, and where its log is; otherwise empty.
    """

    task: Task
    run: Run | None
    error: str = ""


@functools.cache
def hash_inputs(tree: str) -> str:
    """Returns a hash of all files in the project that a stage may read."""
    listing = run_git("ls-tree", "-r", "-z", tree).decode("utf-8", "surrogateescape")
    files = [
        line
        for line in listing.split("\0")
        if line and not NO_INPUTS.match(line.split("\t", maxsplit=1)[1])
    ]
    return hashlib.sha256("\0".join(files).encode(errors="surrogateescape")).hexdigest()


def changed_inputs(old_tree: str, new_tree: str) -> list[str]:
    """Returns the files that a stage may read and that differ between two trees."""
    command = ("diff", "--name-only", "-z", "--relative", old_tree, new_tree)
    names = run_git(*command).decode("utf-8", "replace").split("\0")
    return [visible(name) for name in names if name and not NO_INPUTS.match(name)]


def run_experiments(
    tasks: Sequence[Task], *, jobs: int = 1, deadline: float = float("inf")
) -> Iterator[Outcome]:
    """Runs experiments in copies of the repository, each on its share of the cores.

    Their results come back as experiments of DVC. Each is yielded as it ends, in no
    fixed order. A task that fails does not stop the others. If the caller stops, or
    this process is killed, so are the experiments; what is done stays done.

    Args:
      tasks: What to run. A task whose experiment exists is read, not run.
      jobs: How many to run at a time.
      deadline: Value of `time.monotonic` after which no further one is started.

    Raises:
      InputError: If the repository cannot be copied.
    """
    missing = []
    for task in tasks:
        if exists(task):
            yield _read(task)
        else:
            missing.append(task)
    if missing:
        yield from run_tasks(
            iter(missing),
            total=len(missing),
            jobs=min(jobs, len(missing)),
            deadline=deadline,
        )


def run_tasks(
    tasks: Iterator[Task], *, total: int, jobs: int = 1, deadline: float = float("inf")
) -> Iterator[Outcome]:
    """Runs what an iterator supplies, as `run_experiments` does.

    Args:
      tasks: Is asked for the next one, in a thread, when there is a copy to run it in:
        it may depend on the outcomes so far.
      total: How many there will be, for the progress bar.
      jobs: How many to run at a time.
      deadline: Value of `time.monotonic` after which no further one is started.
    """
    with (
        make_copies(jobs) as copies,
        _Workers(tasks, total, copies, deadline) as workers,
    ):
        yield from workers.outcomes()


def exists(task: Task) -> bool:
    """Tells whether an experiment has the name of a task."""
    pattern = f"refs/exps/*/*/{task.name}"
    return bool(run_git("for-each-ref", "--count=1", pattern))


def _read(task: Task) -> Outcome:
    try:
        return Outcome(task, read_run(task.name, with_seeds=False))
    except InputError as error:
        return Outcome(task, None, f"{task.label}: {error}")


class _Workers:
    """A thread per copy, which runs one experiment after another in it."""

    def __init__(
        self, tasks: Iterator[Task], total: int, copies: Sequence[Copy], deadline: float
    ) -> None:
        self._tasks = tasks
        self._asking = threading.Lock()
        self._total = total
        self._deadline = deadline
        self._ended = queue.SimpleQueue()
        self._stopped = threading.Event()
        # By copy: the task, and the process that runs it.
        self._running: dict[int, tuple[Task, subprocess.Popen]] = {}
        self._fetching = threading.Lock()
        self._threads = [
            threading.Thread(target=self._work, args=[number, copy, cores], daemon=True)
            for number, (copy, cores) in enumerate(
                zip(copies, share_cores(len(copies)), strict=True)
            )
        ]

    def __enter__(self) -> Self:
        LOGS.mkdir(parents=True, exist_ok=True)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stopped.set()
        while any(thread.is_alive() for thread in self._threads):
            for _task, process in list(self._running.values()):
                _kill(process)
            time.sleep(POLL_SECONDS / 10)

    def outcomes(self) -> Iterator[Outcome]:
        """Yields each outcome; shows the progress of what is running."""
        with self._progress_bars() as (overall, lines):
            shown = [""] * len(lines)
            while any(t.is_alive() for t in self._threads) or not self._ended.empty():
                for number, line in enumerate(lines):
                    progress = self._describe(number)
                    line.set_description_str(progress)
                    if overall.disable and progress not in ("", shown[number]):
                        say(progress)  # Not on a terminal.
                    shown[number] = progress
                with suppress(queue.Empty):
                    outcome = self._ended.get(timeout=POLL_SECONDS)
                    if isinstance(outcome, Exception):
                        raise outcome
                    overall.update()
                    yield outcome

    @contextmanager
    def _progress_bars(self) -> Iterator[tuple[tqdm, list[tqdm]]]:
        """Shows, on a terminal, a bar for all experiments and a line for each job."""
        with ExitStack() as stack:
            overall = stack.enter_context(
                tqdm(total=self._total, unit="run", disable=None)
            )
            lines = [
                stack.enter_context(
                    tqdm(bar_format="{desc}", position=n + 1, leave=False, disable=None)
                )
                for n in range(len(self._threads))
            ]
            yield overall, lines

    def _describe(self, number: int) -> str:
        """Returns what a copy is doing, as its log says; "" if nothing yet."""
        running = self._running.get(number)
        if running is None:
            return ""
        task = running[0]
        found = PROGRESS.findall(_tail(log_of(task)))
        return f"{task.label}: {found[-1].decode(errors='replace')}" if found else ""

    def _work(self, number: int, copy: Copy, cores: list[int]) -> None:
        try:
            while not self._stopped.is_set() and time.monotonic() < self._deadline:
                with self._asking:
                    task = next(self._tasks, None)
                if task is None:
                    return
                self._ended.put(self._run(number, copy, cores, task))
        # Raised again in the main thread.
        except Exception as error:
            self._ended.put(error)

    def _run(self, number: int, copy: Copy, cores: list[int], task: Task) -> Outcome:
        copy.reset(task.snapshot)
        command = [
            "python", "-m", "core_mlp.experiments.child", str(os.getpid()),
            ",".join(map(str, cores)), *task.command,
        ]  # fmt: skip
        variables = {threads.VARIABLE: str(threads.num_threads())}
        if task.observer:
            variables["CORE_MLP_STATE_DIR"] = str(task.observer.state_folder.resolve())
        log = log_of(task)
        # Another process may run the same experiment, and share or delete the log.
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                cwd=copy.project,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | variables,
            )
        self._running[number] = task, process
        is_stopped = task.observer is not None and _watch(task, process, copy)
        code = process.wait()
        del self._running[number]
        if task.observer and (is_stopped or code == 0):
            if code == 0:
                task.observer.end(copy.project)
            shutil.rmtree(task.observer.state_folder, ignore_errors=True)
            log.unlink(missing_ok=True)
            return Outcome(task, None)
        # Two fetches at a time may want the same lock of Git.
        with self._fetching:
            if code == 0 and copy.send_experiment(task.name):
                log.unlink(missing_ok=True)
                return _read(task)
        return Outcome(task, None, f"{task.label}: {last_error(log)}; its log is {log}")


def _watch(task: Task, process: subprocess.Popen, copy: Copy) -> bool:
    """Waits for a run; returns whether its observer has stopped it."""
    while process.poll() is None:
        # Until the first epoch ends, DVC may have restored the committed results.
        has_results = PROGRESS.search(_tail(log_of(task)))
        if has_results and task.observer.is_hopeless(copy.project):
            _kill(process)
            return True
        time.sleep(POLL_SECONDS)
    return False


def _kill(process: subprocess.Popen) -> None:
    """Kills a process and its stages, which are in the same session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def share_cores(jobs: int) -> list[list[int]]:
    """Divides the cores that this process may use into one list per job."""
    cores = threads.available_cores()
    return [cores[n::jobs] or [cores[n % len(cores)]] for n in range(jobs)]


def log_of(task: Task) -> Path:
    """Returns the file with what an experiment prints."""
    return LOGS / f"{task.name}.log"


def last_error(log: Path) -> str:
    """Returns the line of a log that says why an experiment failed."""
    lines = [line.strip() for line in _tail(log).decode(errors="replace").splitlines()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or [line for line in lines if line] or ["no output"])[0]


def _tail(path: Path) -> bytes:
    """Returns the end of a file; nothing if it does not exist yet."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            return file.read()
    except FileNotFoundError:
        return b""


def require_all(outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
    """Passes on what succeeded; in the end, names what failed.

    Raises:
      InputError: If any failed.
    """
    errors = []
    for outcome in outcomes:
        if outcome.error:
            errors.append(outcome.error)
            say(f"failed: {outcome.error}")
        else:
            yield outcome
    if errors:
        more = f" (and {len(errors) - 1} more)" if errors[1:] else ""
        raise InputError(f"{errors[0]}{more}")


def say(line: str) -> None:
    """Prints a line above the progress bars."""
    tqdm.write(visible(line), file=sys.stdout)
    sys.stdout.flush()
