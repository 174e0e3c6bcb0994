"""DVC restores earlier runs instead of repeating them, here and in other clones."""

import re
import shlex
import shutil

import pytest
from helpers import ROOT, commit_all, core_mlp, run, stages_run, write_params

SHARING = (ROOT / "docs/sharing.md").read_text()


def documented(command):
    """Returns the commands of docs/sharing.md's block that has this one."""
    [block] = [
        lines
        for lines in re.findall(r"```console\n(.*?)```", SHARING, re.S)
        if f"$ {command}\n" in lines
    ]
    return re.findall(r"^\$ (.*)", block, re.M)


def outputs_and_lock(folder):
    """Returns the files that a run leaves, with their bytes."""
    paths = [folder / "dvc.lock"]
    for name in ("data", "models", "metrics", "plots"):
        paths += [path for path in (folder / name).rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def changed(pipeline, tmp_path_factory):
    """The repository on main; on branch `changed`, two stages' parameters differ.

    Also what `dvc repro` printed, and the outputs.
    """
    folder = tmp_path_factory.mktemp("run_cache") / "repository"
    shutil.copytree(pipeline, folder)
    write_params(folder, epochs=2, validation_size=301)
    printed = run("dvc", "repro", cwd=folder)
    outputs = outputs_and_lock(folder)
    run("git", "checkout", "--quiet", "-b", "changed", cwd=folder)
    commit_all(folder, "Two epochs")
    run("git", "checkout", "--quiet", "main", cwd=folder)
    run("dvc", "checkout", "--quiet", cwd=folder)
    return folder, printed, outputs


def test_going_back_to_earlier_parameters_runs_nothing(changed):
    folder, printed, outputs = changed
    assert {"preprocess", "train", "export", "evaluate"} <= set(stages_run(printed))
    assert outputs_and_lock(folder) != outputs

    write_params(folder, epochs=2, validation_size=301)
    restored = run("dvc", "repro", cwd=folder)

    assert stages_run(restored) == []
    assert "Stage 'train' is cached - skipping run" in restored
    assert outputs_and_lock(folder) == outputs

    # What core-mlp says about both.
    differences = core_mlp("same", "main", cwd=folder)
    assert differences.returncode == 1
    lines = differences.stdout.splitlines()
    assert "differs: models/checkpoint/variables.data-00000-of-00001" in lines
    assert "differs: plots/history.csv" in lines
    assert not any("data/raw" in line for line in lines)
    assert core_mlp("same", "changed", cwd=folder).returncode == 0

    # The same as an experiment.
    run("git", "checkout", "--quiet", ".", cwd=folder)
    run("dvc", "checkout", "--quiet", cwd=folder)
    settings = ("-S", "epochs=2", "-S", "validation_size=301")
    experiment = run("dvc", "exp", "run", *settings, cwd=folder)

    assert stages_run(experiment) == []
    assert outputs_and_lock(folder) == outputs


@pytest.mark.slow
def test_what_cannot_change_a_weight_does_not_train_again(workspace):
    for module in ("evaluation/plots.py", "reporting/report.py", "data/splits.py"):
        path = workspace / "src/core_mlp" / module
        path.write_text(path.read_text() + "# A comment\n")

    output = run("dvc", "repro", cwd=workspace)

    assert {"preprocess", "evaluate"} <= set(stages_run(output))
    assert not {"fetch", "train", "export"} & set(stages_run(output))


def test_the_commands_of_docs_sharing_bring_a_run_to_another_clone(changed, tmp_path):
    folder, _, outputs = changed
    run("git", "checkout", "--quiet", ".", cwd=folder)
    run("dvc", "checkout", "--quiet", cwd=folder)
    for command in documented("core-mlp push"):
        words = shlex.split(command.replace("/mnt/shared", str(tmp_path)))
        run(*words, cwd=folder)
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(folder), str(clone), cwd=tmp_path)

    # A different setting from the one that is checked out.
    write_params(clone, epochs=2, validation_size=301)
    printed = [
        run(*shlex.split(command), cwd=clone)
        for command in documented("dvc pull --run-cache")
    ]

    assert stages_run("".join(printed)) == []
    assert outputs_and_lock(clone) == outputs
