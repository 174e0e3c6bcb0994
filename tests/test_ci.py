"""CI: checks of dvc.lock, the workflow, and the environment."""

import re

import pytest
import yaml
from helpers import ROOT, commit_all, run, try_to_run


@pytest.fixture(scope="module")
def clone(pipeline, tmp_path_factory):
    """A clone without data, cache or remote."""
    folder = tmp_path_factory.mktemp("ci") / "clone"
    run("git", "clone", "--quiet", str(pipeline), str(folder), cwd=pipeline)
    return folder


def check_lock(folder, *arguments):
    return try_to_run("python", ".ci/check_lock.py", *arguments, cwd=folder)


def test_dvc_lock_matches_the_commit_although_there_is_no_data(clone):
    result = check_lock(clone)

    assert result.returncode == 0, result.stdout
    assert not (clone / "data/raw").exists()


@pytest.mark.parametrize(
    ("path", "old", "new", "change"),
    [
        ("stages/fetch.py", "import", "\nimport", "fetch: changed deps"),
        ("src/core_mlp/evaluation/metrics.py", "15", "16", "evaluate: changed deps"),
        ("dvc.yaml", "python -m stages.f", "python -B -m stages.f", "fetch: changed c"),
        ("params.yaml", "epochs: 1\n", "epochs: 2\n", "train: changed deps: params"),
        ("metrics/evaluate.json", "0.", "1.", "evaluate: changed outs: metrics/"),
        ("metrics/train.json", None, None, "train: changed outs: metrics/train.json"),
        ("plots/history.csv", None, None, "train: changed outs: plots/history.csv"),
        ("dvc.yaml", "[models/saved", "[models/new, models/saved", "export: changed o"),
        ("dvc.lock", "schema", "<<<<<<< HEAD\nschema", "error: dvc.lock is corrupt"),
        ("dvc.lock", "stages:", "stage:", "error: dvc.lock is corrupt"),
        ("dvc.lock", None, None, "error: dvc.lock is missing; run `dvc repro`"),
    ],
)  # fmt: skip
def test_a_lock_that_is_out_of_date_is_found(clone, path, old, new, change):
    file = clone / path
    if old is None:
        file.unlink()
    else:
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1))

    result = check_lock(clone)
    run("git", "checkout", "--quiet", ".", cwd=clone)

    assert result.returncode == 1, result.stdout
    assert any(line.startswith(change) for line in result.stdout.splitlines()), (
        result.stdout
    )
    assert "Traceback" not in result.stdout


def test_a_result_that_a_commit_deleted_is_found(clone):
    run("git", "rm", "--quiet", "plots/mistakes.csv", cwd=clone)
    commit_all(clone, "Without it")

    result = check_lock(clone)
    run("git", "reset", "--quiet", "--hard", "HEAD~1", cwd=clone)

    assert result.returncode == 1
    assert "evaluate: changed outs: plots/mistakes.csv: deleted\n" in result.stdout


@pytest.mark.parametrize(
    ("stage", "arguments", "problem"),
    [
        ("export", [], "evaluate: deps: models/saved_model: not the output of its st"),
        ("fetch", ["--after-run"], "fetch: data/raw: "),
    ],
)
def test_other_outputs_than_committed_are_found(clone, stage, arguments, problem):
    lock = clone / "dvc.lock"
    document = yaml.safe_load(lock.read_text())
    out = document["stages"][stage]["outs"][-1]
    out["md5"] = f"{'0' * 32}.dir"
    lock.write_text(yaml.safe_dump(document))

    result = check_lock(clone, *arguments)
    run("git", "checkout", "--quiet", ".", cwd=clone)

    assert result.returncode == 1
    assert problem in result.stdout
    assert check_lock(clone, "--after-run").returncode == 0


def test_the_workflow_pins_its_actions_and_calls_what_exists():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yaml").read_text())
    makefile = (ROOT / "Makefile").read_text()
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])
                continue
            for target in re.findall(r"\bmake (\w+)", step["run"]):
                assert re.search(rf"^(\w+ )*{target}( \w+)*:", makefile, re.M), target
            for file in re.findall(r"\.ci/[\w.]+", step["run"]):
                assert (ROOT / file).exists()


@pytest.mark.parametrize(
    ("python", "problem"),
    [
        ("", "error: needs Python 3.11, 3.12 or 3.13: try `uv python install 3.13`"),
        ("/old/python", "error: /old/python is not Python 3.11, 3.12 or 3.13"),
    ],
)
def test_setup_without_a_fitting_python_says_what_to_do(clone, python, problem):
    result = try_to_run("make", "setup", f"PYTHON={python}", "UV=", cwd=clone)

    assert result.returncode != 0
    assert problem in result.stdout
    assert not (clone / ".venv").exists()
