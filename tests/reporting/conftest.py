"""Fixtures of the tests of reports: real branches, and a made-up run."""

import json
import shutil

import pytest
from helpers import commit_all, run, run_stages
from made_up import ACCURACIES, read_run_in

from core_mlp.reporting.runs import Run
from core_mlp.results.evaluate import Mistake


@pytest.fixture(scope="module")
def clone(pipeline, tmp_path_factory):
    """A clone, without cache or remote, in which branch `longer` has more epochs."""
    folder = tmp_path_factory.mktemp("clone")
    work = shutil.copytree(pipeline, folder / "work")
    run("git", "checkout", "--quiet", "-b", "longer", cwd=work)
    params = work / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 1\n", "epochs: 12\n"))
    run_stages(work, "train", "export", "evaluate")
    run("dvc", "commit", "--quiet", "--force", cwd=work)
    commit_all(work, "Train for longer")
    run("git", "checkout", "--quiet", "main", cwd=work)
    bare = folder / "bare"
    run("git", "clone", "--quiet", str(work), str(bare), cwd=folder)
    run("git", "fetch", "--quiet", "origin", "longer:longer", cwd=bare)
    return bare


@pytest.fixture
def seeded(clone):
    """The same clone with seeds on `main` and `longer`; `alone` is `longer` without."""
    run("git", "branch", "--quiet", "--force", "alone", "longer", cwd=clone)
    for name in ("longer", "main"):
        run("git", "checkout", "--quiet", name, cwd=clone)
        identity = read_run_in(clone, name).identity
        runs = [
            {
                "seed": seed,
                "metrics": {"test_accuracy": accuracy},
                "classes": {"3": accuracy, "4": 0.8 + seed / 1000},
            }
            for seed, accuracy in enumerate(ACCURACIES[name], start=1)
        ]
        text = json.dumps({"identity": identity, "runs": runs})
        (clone / "metrics/seeds.json").write_text(text)
        commit_all(clone, "Seeds")
    yield clone
    for name in ("longer", "main"):
        run("git", "checkout", "--quiet", "--force", name, cwd=clone)
        run("git", "reset", "--quiet", "--hard", "HEAD~1", cwd=clone)


@pytest.fixture(scope="module")
def project(pipeline, tmp_path_factory):
    """The pipeline's repository without its cache."""
    folder = tmp_path_factory.mktemp("evidence") / "clone"
    run("git", "clone", "--quiet", str(pipeline), str(folder), cwd=pipeline)
    return folder


@pytest.fixture
def in_project(project, monkeypatch):
    """The same, as the current folder; reset to its commit after the test."""
    monkeypatch.chdir(project)
    yield project
    run("git", "checkout", "--quiet", ".", cwd=project)
    run("git", "clean", "--quiet", "--force", cwd=project)


@pytest.fixture(scope="module")
def true_run(project):
    """The results as they are."""
    return read_run_in(project, None)


@pytest.fixture
def good_run():
    """A run with 10,000 test images of ten classes, 200 of them misclassified."""
    names = [str(label) for label in range(10)]
    mistakes = {
        index: Mistake(index, names[index % 10], names[(index + 1) % 10], 0.75)
        for index in range(200)
    }
    confusion = {(a, b): 980 if a == b else 0 for a in names for b in names}
    for mistake in mistakes.values():
        confusion[mistake.label, mistake.predicted] += 1
    return Run(
        name="good",
        params={"dataset": "digits", "epochs": 2},
        metrics={
            "train_epochs": 2,
            "validation_accuracy": 0.98,
            "test_accuracy": 0.98,
            "test_accuracy_low": 0.977,
            "test_accuracy_high": 0.983,
            "test_loss": 0.08,
            "test_calibration_error": 0.01,
        },
        history=[],
        confusion=confusion,
        classes=[],
        calibration=[],
        mistakes=mistakes,
        sprite=None,
        test_split="0" * 32,
        seeds=None,
        inputs={},
    )
