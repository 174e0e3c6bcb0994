"""Fixtures, and the environment of the tests."""

import gc
import json
import os
import shutil
import tempfile
from pathlib import Path

import preloaded
import pytest
from filelock import FileLock

# Prepares the environment, as for a stage, before any test imports TensorFlow.
import stages  # noqa: F401  # isort: skip

# A process forked from one that uses TensorFlow must not collect the parent's garbage:
# destroying a tf.data iterator waits for threads that the child does not have.
os.register_at_fork(after_in_child=gc.freeze)

# TFDS reads this when it is imported: the tests prepare their own datasets.
TFDS_DIR = tempfile.TemporaryDirectory()
os.environ["TFDS_DATA_DIR"] = TFDS_DIR.name
# Leaves the saved state of the user's own training runs alone.
STATE_DIR = tempfile.TemporaryDirectory()
os.environ["CORE_MLP_STATE_DIR"] = STATE_DIR.name

from helpers import (  # noqa: E402
    ROOT,
    commit_all,
    copy_repository,
    run,
    run_stages,
    write_params,
)


def pytest_configure(config):
    """Starts the process that commands are forked from, once for all workers.

    In a process that runs tests, sets TensorFlow up as train does.
    """
    if config.getoption("numprocesses", None):
        folder = Path(tempfile.mkdtemp())
        config.preloaded = preloaded.Server(folder)
        os.environ["PRELOADED"] = str(folder)
        return
    from core_mlp.training.device import set_up_device

    set_up_device()  # Now, since test modules make tensors when they are imported.


def pytest_unconfigure(config):
    """Ends it."""
    if hasattr(config, "preloaded"):
        config.preloaded.stop()
        shutil.rmtree(config.preloaded.folder)


def pytest_collection_modifyitems(items):
    """Starts the longest files first, so that both workers end at about the same time.

    The second one needs no pipeline, which the first one is still running.
    """
    longest = ["run_cache", "contributing", "experiments", "faults", "report"]
    order = {f"test_{name}.py": rank for rank, name in enumerate(longest)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_terminal_summary(terminalreporter):
    """Prints the results of fault injection."""
    rows = [
        value
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        for key, value in report.user_properties
        if key == "faults"
    ]
    if rows:
        terminalreporter.section("faults")
        row = "{:<36} {:>8} {:>8} {:>8} {:>9}".format
        terminalreporter.line(row("", "injected", "survived", "lost", "bit-equal"))
        for fault, injected, lost, bit_equal in sorted(rows):
            line = row(fault, injected, injected - lost, lost, bit_equal)
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def _own_state(tmp_path_factory, monkeypatch):
    """Keeps a test from going on from the state of another one's finished run."""
    monkeypatch.setenv("CORE_MLP_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def real_commands(monkeypatch):
    """Lets a test run the installed commands, as if each had just started."""
    monkeypatch.delenv("PRELOADED", raising=False)


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory):
    """A folder in which fetch and preprocess have run on sklearn_digits."""
    folder = tmp_path_factory.mktemp("digits")
    write_params(folder)
    run_stages(folder, "fetch", "preprocess")
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory):
    """A repository in which the pipeline has run on sklearn_digits."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    # The first worker makes it; each worker has a copy.
    with FileLock(shared / "pipeline.lock"):
        if not (shared / "pipeline").exists():
            make_pipeline(tmp_path_factory.mktemp("made")).rename(shared / "pipeline")
    return shutil.copytree(shared / "pipeline", own / "pipeline_copy")


@pytest.fixture(scope="session")
def digit_model():
    """The repository's own model, if it is a good one and of MNIST's digits."""
    from core_mlp.serving.predict import load_model

    folder, evaluated = ROOT / "models/saved_model", ROOT / "metrics/evaluate.json"
    if not (folder / "assets.extra").exists() or not evaluated.exists():
        pytest.skip("needs the model in models/: run `dvc repro`")
    model = load_model(folder)
    network = model.network
    accuracy = json.loads(evaluated.read_text())["test_accuracy"]
    if network.drawing_side is None or accuracy < 0.97:
        pytest.skip("needs a model in models/ that knows MNIST's digits")
    return model


def make_pipeline(folder: Path) -> Path:
    """Runs the pipeline in a copy of the repository, and commits the results."""
    copy_repository(folder)
    for path in ("metrics/seeds.json", "plots/seeds.csv"):  # From other settings.
        (folder / path).unlink(missing_ok=True)
    write_params(folder)
    # Not all stages: names in a SavedModel depend on what the process ran before.
    names = ("fetch", "preprocess", "train")
    run_stages(folder, *names)
    run("dvc", "commit", "--quiet", "--force", *names, cwd=folder)
    run("dvc", "repro", cwd=folder)
    commit_all(folder, "Train on sklearn_digits")
    return folder


@pytest.fixture
def workspace(pipeline):
    """The same repository, reset to its commit after the test."""
    yield pipeline
    run("git", "reset", "--quiet", "--hard", cwd=pipeline)
    run("git", "clean", "--quiet", "--force", "-d", cwd=pipeline)
    run("dvc", "checkout", "--quiet", "--force", cwd=pipeline)


@pytest.fixture
def fabricated(monkeypatch):
    """Lets a test make up results; whether they agree is tested in test_evidence.py."""
    from core_mlp.pipeline import provenance
    from core_mlp.reporting import evidence

    monkeypatch.setattr(evidence, "check", lambda run: None)
    monkeypatch.setattr(evidence, "check_hashes", lambda *_: None)
    monkeypatch.setattr(provenance, "find_contradictions", lambda _stages: [])
