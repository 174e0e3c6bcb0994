"""Experiments, several at a time: a stand-in for DVC, and DVC itself."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from helpers import ENVIRONMENT, commit_all, core_mlp, run, start, write_params

from core_mlp.experiments import runner
from core_mlp.experiments.copies import COPIES, Snapshot, make_copies
from core_mlp.experiments.runner import (
    Outcome,
    Task,
    run_experiments,
    run_tasks,
    share_cores,
)
from core_mlp.experiments.trials import HISTORY, TrainingRun
from core_mlp.pipeline.errors import InputError
from core_mlp.training import threads

# Stands in for `python -m core_mlp.experiments.child ... dvc exp run --name NAME`:
# makes an experiment whose commit has a file with the settings.
STAND_IN = """\
#!/bin/sh
set -e
name=$9; shift 9
echo "Epoch 1/2: $*, 5 images/s"
case "$*" in
  *bad*) echo 'WARNING: a log'; echo 'error: params.yaml: bad'; echo 'ERROR: DVC'
    exit 1 ;;
  *slow*) sleep 1000 & echo $! > "$STAND_INS/$name.slow"; wait ;;
esac
echo "$PWD" >> "$STAND_INS/folders"
echo "$CORE_MLP_NUM_THREADS" >> "$STAND_INS/threads"
echo "$*" > settings
git add --all >/dev/null
git -c user.name=a -c user.email=b commit --quiet --message "$*"
git update-ref "refs/exps/ab/cd/$name" HEAD
"""


def tasks_of(*settings):
    snapshot = Snapshot.take(None)
    return [Task(setting, snapshot, (setting,)) for setting in settings]


def files_of(name):
    ref = f"refs/exps/ab/cd/{name}"
    listing = run("git", "ls-tree", "-r", "--name-only", ref, cwd=Path.cwd())
    return set(listing.split()) - {".dvcignore"}


def test_experiments_come_back_and_the_workspace_is_left_alone(project):
    (project / "src/code.py").write_text("changed")
    (project / "src/new.py").write_text("new")
    before = run("git", "status", "--porcelain", cwd=project)
    tasks = tasks_of("seed=1", "seed=2", "seed=3")

    outcomes = list(run_experiments(tasks, jobs=2))

    assert {o.task for o in outcomes} == set(tasks)
    assert all(o.run == o.task.name and not o.error for o in outcomes)
    for task in tasks:
        # With what is not committed, and what is not even added.
        assert {"settings", "src/code.py", "src/new.py"} <= files_of(task.name)
        text = run("git", "show", f"refs/exps/ab/cd/{task.name}:settings", cwd=project)
        assert text == f"-S {task.label}\n"
    assert run("git", "status", "--porcelain", cwd=project) == before
    assert list(COPIES.iterdir()) == []
    folders = Path(os.environ["STAND_INS"], "folders").read_text().splitlines()
    assert len(folders) == 3
    assert len(set(folders)) == 2
    # As many as for one experiment that has all cores: bytes depend on it.
    found = Path(os.environ["STAND_INS"], "threads").read_text().split()
    assert found == [str(threads.num_threads())] * 3


def test_what_has_run_is_not_run_again(project, monkeypatch):
    tasks = tasks_of("seed=1", "seed=2")
    list(run_experiments(tasks[:1]))
    # What no stage reads may change, as the results of a decision do.
    (project / "metrics").mkdir()
    (project / "metrics/seeds.json").write_text("{}")
    (project / "README.md").write_text("A text")
    commit_all(project, "Results")

    again = tasks_of("seed=1", "seed=2")
    assert [task.name for task in again] == [task.name for task in tasks]
    assert len(list(run_experiments(again))) == 2
    folders = Path(os.environ["STAND_INS"], "folders").read_text().splitlines()
    assert len(folders) == 2
    # Whatever a stage may read does.
    for path in ("params.yaml", "src/code.py", "data.dvc", "stages/a.py"):
        (project / path).parent.mkdir(exist_ok=True)
        (project / path).write_text("something else")
        assert tasks_of("seed=1")[0].name != tasks[0].name
        run("git", "stash", "--quiet", "--include-untracked", cwd=project)


def test_one_that_fails_is_named_with_its_log_and_the_others_run(project):
    outcomes = list(run_experiments(tasks_of("bad=1", "seed=1", "bad=2"), jobs=2))

    errors = sorted(o.error for o in outcomes if o.error)
    assert [o.task.label for o in outcomes if o.run] == ["seed=1"]
    assert len(errors) == 2
    message, log = errors[0].split("; its log is ")
    assert message == "bad=1: error: params.yaml: bad"
    assert "WARNING: a log" in Path(log).read_text()
    with pytest.raises(InputError, match=r"^bad=1: .* \(and 1 more\)$"):
        list(runner.require_all(iter(sorted(outcomes, key=lambda o: o.error))))


def test_data_that_is_in_neither_git_nor_dvc_is_an_error(project):
    """Git would store a copy of it."""
    (project / "data/source/mine").mkdir(parents=True)
    (project / "data/source/mine.dvc").write_text("outs: []")
    Snapshot.take(None)
    (project / "data/source/mine/1.png").write_text("a picture")

    with pytest.raises(InputError, match=r"^data/source/mine/1.png: is in neither"):
        Snapshot.take(None)
    (project / "data/source/.gitignore").write_text("/mine\n")
    Snapshot.take(None)


def test_no_experiment_starts_after_the_deadline(project):
    tasks = tasks_of("seed=1", "seed=2")

    assert list(run_experiments(tasks, deadline=time.monotonic())) == []


def test_a_caller_that_stops_leaves_no_process_and_no_copy(project):
    outcomes = run_experiments(tasks_of("seed=1", "slow=1", "slow=2"), jobs=3)
    next(outcomes)
    slow = wait_for_slow(2)

    outcomes.close()

    assert all(has_ended(pid) for pid in slow)
    assert list(COPIES.iterdir()) == []


def test_copies_of_a_process_that_was_killed_are_deleted_by_the_next(project):
    code = (
        "from core_mlp.experiments.copies import make_copies\n"
        "with make_copies(2):\n"
        "    print('ready', flush=True)\n"
        "    input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == "ready\n"
        with make_copies(1) as [copy]:  # Beside it, which leaves its copies alone.
            assert copy.project.exists()
            assert len(list(COPIES.glob("*/*/.git"))) == 3
        process.kill()
    assert len(list(COPIES.glob("*/*/.git"))) == 2

    with make_copies(1):
        assert len(list(COPIES.glob("*/*/.git"))) == 1
    assert list(COPIES.iterdir()) == []


@pytest.mark.parametrize("chosen", ["", "symlink"])
def test_files_in_a_copy_are_links_into_the_cache(project, chosen):
    """Otherwise, each of several jobs would copy all pictures."""
    if chosen:
        run("dvc", "config", "cache.type", chosen, cwd=project)
        commit_all(project, "Links")

    with make_copies(1) as [copy]:
        found = run("dvc", "config", "cache.type", cwd=copy.project)

    assert found == f"{chosen or 'reflink,hardlink,copy'}\n"


@pytest.mark.parametrize("name", ["", "Ada"])
def test_a_copy_has_an_identity_for_commits(project, monkeypatch, name):
    """A CI machine has none."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", "/dev/null")
    if name:
        run("git", "config", "user.name", name, cwd=project)

    with make_copies(1) as [copy]:
        found = run("git", "config", "user.name", cwd=copy.root)

    assert found == f"{name or 'core-mlp'}\n"


def test_cores_are_shared(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0, 2, 4, 5, 7})

    assert share_cores(1) == [[0, 2, 4, 5, 7]]
    assert share_cores(2) == [[0, 4, 7], [2, 5]]
    assert share_cores(6) == [[0], [2], [4], [5], [7], [0]]


def wait_for_slow(number):
    """Returns the process IDs that slow experiments have noted."""
    for _ in range(200):
        found = list(Path(os.environ["STAND_INS"]).glob("*.slow"))
        pids = [int(path.read_text() or 0) for path in found]
        if len(pids) == number and all(pids):
            return pids
        time.sleep(0.05)
    raise AssertionError("the slow experiments have not started")


def has_ended(pid):
    """Tells whether a process has ended; its parent may not have waited for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")
    except FileNotFoundError:
        return True


def test_dvc_runs_an_experiment_in_a_copy_with_the_same_bytes(workspace, monkeypatch):
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    before = run("git", "status", "--porcelain", cwd=workspace)
    seed = "seed=70007"  # No other test runs it, so that it is not in the run cache.
    [task] = tasks_of(seed)
    # Before, a run of train in the same copy, which is killed after an epoch.
    stopped = TrainingRun(("epochs=5000",))
    stopped.is_hopeless = lambda project: (project / HISTORY).exists()
    first = task._replace(settings=("epochs=5000",), observer=stopped)

    outcomes = {
        outcome.task: outcome for outcome in run_tasks(iter([first, task]), total=2)
    }

    assert outcomes[first] == Outcome(first, None)
    assert stopped.metrics is None
    assert not stopped.state_folder.exists()
    outcome = outcomes[task]
    assert outcome.error == ""
    assert outcome.run.params["seed"] == 70007
    again = ("dvc", "exp", "run", "--temp", "--force", "-S", seed)
    expected = (
        run(*again, "--downstream", "train", cwd=workspace)
        .split("Ran experiment(s): ")[1]
        .split()[0]
    )
    refs = run("git", "for-each-ref", "--format=%(refname)", cwd=workspace).split()
    refs = {ref.split("/")[-1]: ref for ref in refs}
    trees = [f"{refs[name]}^{{tree}}" for name in (outcome.task.name, expected)]
    first, second = run("git", "rev-parse", *trees, cwd=workspace).split()
    assert first == second
    assert run("git", "status", "--porcelain", cwd=workspace) == before


@pytest.mark.slow
def test_a_sweep_ends_with_the_ranking(workspace):
    result = run("core-mlp", "sweep", "-S", "epochs=1,2", "--jobs", "2", cwd=workspace)

    assert "epochs=2: validation accuracy 0." in result
    assert "Best by validation on sklearn_digits: epochs-2-" in result


def processes_in(folder):
    """Returns the commands of the processes that work in a folder.

    Other tests run the same programs elsewhere at the same time.
    """
    commands = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if Path(process.cwd()).is_relative_to(folder):
                commands.append(process.cmdline())
    return commands


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_runner_that_is_killed_leaves_no_process_and_goes_on(workspace, kind):
    # Settings of which nothing has run, and so nothing is known.
    write_params(workspace, batch_size=100 + kind)
    logs = workspace / ".dvc/tmp/logs"
    shutil.rmtree(logs, ignore_errors=True)
    process = start("core-mlp", "seeds", "3", "--jobs", "2", cwd=workspace)
    while not list(logs.glob("seed-*.log")):
        assert process.poll() is None
        time.sleep(0.1)
    time.sleep(5)
    process.send_signal(kind)
    process.communicate(timeout=60)
    time.sleep(2)

    assert processes_in(workspace) == []
    result = core_mlp("seeds", "3", "--jobs", "2", cwd=workspace)
    assert result.returncode == 0, result.stdout
    assert list((workspace / COPIES).iterdir()) == []
