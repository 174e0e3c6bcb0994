"""Experiments: in the workspace, in a temporary folder and from the queue."""

import csv
import re
import shutil
import time

import pytest
from helpers import core_mlp, run, stages_run, try_to_run

QUEUE_TIMEOUT = 120


def experiments(folder):
    """Returns each experiment's columns, as the README shows them, by name."""
    table = run("dvc", "exp", "show", "--drop", ".*/", "--csv", "--num=1", cwd=folder)
    table = table[table.index("Experiment,") :]
    rows = csv.DictReader(table.splitlines())
    return {row["Experiment"]: row for row in rows if row["Experiment"]}


TRAINED = (
    "dvc.lock",
    "metrics/train.json",
    "models/checkpoint/variables.data-00000-of-00001",
    "plots/history.csv",
)


def epochs_of(output):
    """Returns the numbers of the epochs in a log of train."""
    return [int(number) for number in re.findall(r"^Epoch (\d)/", output, re.M)]


def test_more_epochs_go_on_from_the_last_run_in_every_copy(
    workspace, tmp_path, monkeypatch
):
    run("dvc", "repro", "--force", "--single-item", "train", cwd=workspace)
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(workspace), str(clone), cwd=tmp_path)
    # Not its run cache, which would restore what is to be trained here.
    cache = ".dvc/cache/files"
    shutil.copytree(workspace / cache, clone / cache)
    run("dvc", "checkout", "--quiet", cwd=clone)

    experiment = ("dvc", "exp", "run", "train", "-S")
    second = run(*experiment, "epochs=3", "--temp", cwd=workspace)
    third = run(*experiment, "epochs=5", cwd=clone)
    continued = [(clone / name).read_bytes() for name in TRAINED]
    monkeypatch.setenv("CORE_MLP_STATE_DIR", str(tmp_path / "empty"))
    scratch = run("dvc", "repro", "--force", "--single-item", "train", cwd=clone)

    assert "Continuing after epoch 1, from " in second
    assert epochs_of(second) == [2, 3]
    assert "Continuing after epoch 3, from " in third
    assert epochs_of(third) == [4, 5]
    assert epochs_of(scratch) == [1, 2, 3, 4, 5]
    assert [(clone / name).read_bytes() for name in TRAINED] == continued


def test_an_experiment_changes_one_line_and_runs_what_depends_on_it(workspace):
    text = (workspace / "params.yaml").read_text()
    params = re.sub(r"(?m)^(\w+):.*", r"\g<0>  # about \1", text)
    (workspace / "params.yaml").write_text(params)

    output = run("dvc", "exp", "run", "-S", "learning_rate=0.00001", cwd=workspace)

    assert {"train", "export", "evaluate"} <= set(stages_run(output))
    assert not {"fetch", "preprocess"} & set(stages_run(output))
    assert (workspace / "params.yaml").read_text() == params.replace(
        "learning_rate: 0.001", "learning_rate: 1e-05"
    )
    name = re.search(r"Ran experiment\(s\): (\S+)", output)[1]
    row = experiments(workspace)[name]
    assert row["learning_rate"] == "1e-05"
    assert float(row["test_accuracy"]) < 0.5
    assert not any(":" in column or "/" in column for column in row)
    run("git", "stash", "--quiet", cwd=workspace)
    assert core_mlp("report", "main", name, cwd=workspace).returncode == 0
    assert "| 0.001 | 1e-05 |" in (workspace / "report.md").read_text()


@pytest.mark.slow
def test_queued_and_temporary_experiments_use_their_own_code(workspace):
    run("dvc", "exp", "run", "--queue", "-S", "epochs=2", cwd=workspace)
    # The queued experiments have copies of the working code.
    loop = workspace / "src/core_mlp/training/loop.py"
    loop.write_text(loop.read_text() + "\nraise RuntimeError('broken')\n")
    before = run("git", "diff", cwd=workspace)

    run("dvc", "queue", "start", "--jobs", "1", cwd=workspace)
    deadline = time.monotonic() + QUEUE_TIMEOUT
    while "Success" not in (status := run("dvc", "queue", "status", cwd=workspace)):
        assert "Failed" not in status, status
        assert time.monotonic() < deadline, status
        time.sleep(4)  # The command itself takes the processor for a second.

    assert status.count("Success") == 1, status
    broken = try_to_run("dvc", "exp", "run", "--temp", "-S", "epochs=2", cwd=workspace)
    assert broken.returncode != 0
    assert "RuntimeError: broken" in broken.stdout
    assert run("git", "diff", cwd=workspace) == before
    assert "2" in {row["epochs"] for row in experiments(workspace).values()}
