"""DVC restores earlier runs instead of repeating them, here and in other clones."""

import re
import shlex

import pytest
from helpers import ROOT, commit_all, run, stages_run, try_to_run, write_params

SHARING = (ROOT / "docs/sharing.md").read_text()
PUSH, PULL = (
    re.findall(r"^\$ (.*)", block, re.M)
    for block in re.findall(r"```console\n(.*?)```", SHARING, re.S)
)


def outputs_and_lock(folder):
    """Returns the files that a run leaves, with their bytes."""
    paths = [folder / "dvc.lock"]
    for name in ("data", "models", "metrics", "plots"):
        paths += [path for path in (folder / name).rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def test_going_back_to_earlier_parameters_runs_nothing(workspace):
    # Runs that DVC has seen; the fixture has run these two stages without it.
    for stage in ("preprocess", "train"):
        run("dvc", "repro", "--quiet", "--force", "--single-item", stage, cwd=workspace)
    before = outputs_and_lock(workspace)
    write_params(workspace, epochs=2, validation_size=301)
    changed = run("dvc", "repro", cwd=workspace)
    after = outputs_and_lock(workspace)
    differences = try_to_run("core-mlp", "same", "main", cwd=workspace)

    write_params(workspace)
    restored = run("dvc", "repro", cwd=workspace)

    assert {"preprocess", "train", "export", "evaluate"} <= set(stages_run(changed))
    assert stages_run(restored) == []
    assert "Stage 'train' is cached - skipping run" in restored
    assert outputs_and_lock(workspace) == before
    # What core-mlp says of both.
    assert differences.returncode == 1
    lines = differences.stdout.splitlines()
    assert "differs: models/checkpoint/variables.data-00000-of-00001" in lines
    assert "differs: plots/history.csv" in lines
    assert not any("data/raw" in line for line in lines)
    assert "differs" not in run("core-mlp", "same", "main", cwd=workspace)

    # As an experiment, likewise.
    settings = ("-S", "epochs=2", "-S", "validation_size=301")
    experiment = run("dvc", "exp", "run", *settings, cwd=workspace)

    assert stages_run(experiment) == []
    assert outputs_and_lock(workspace) == after


@pytest.mark.slow
def test_what_cannot_change_a_weight_does_not_train_again(workspace):
    for module in ("evaluation/plots.py", "reporting/report.py", "sources/arrays.py"):
        path = workspace / "src/core_mlp" / module
        path.write_text(path.read_text() + "# A comment\n")

    output = run("dvc", "repro", cwd=workspace)

    assert {"fetch", "preprocess", "evaluate"} <= set(stages_run(output))
    assert not {"train", "export"} & set(stages_run(output))


def test_the_commands_of_docs_sharing_bring_a_run_to_another_clone(workspace, tmp_path):
    head = run("git", "rev-parse", "HEAD", cwd=workspace).strip()
    write_params(workspace, epochs=2)
    run("dvc", "repro", cwd=workspace)
    commit_all(workspace, "Two epochs")
    of_two_epochs = outputs_and_lock(workspace)
    write_params(workspace)
    run("dvc", "repro", cwd=workspace)
    commit_all(workspace, "One epoch")
    for command in PUSH:
        words = shlex.split(command.replace("/mnt/shared", str(tmp_path)))
        run(*words, cwd=workspace)
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(workspace), str(clone), cwd=tmp_path)
    run("git", "reset", "--quiet", "--hard", head, cwd=workspace)

    # Another setting than the one that is checked out.
    write_params(clone, epochs=2)
    outputs = [run(*shlex.split(command), cwd=clone) for command in PULL]

    assert stages_run("".join(outputs)) == []
    assert outputs_and_lock(clone) == of_two_epochs
