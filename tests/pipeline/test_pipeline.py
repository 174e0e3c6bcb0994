"""The pipeline as users run it: real DVC, real Git, in copies of the repository."""

import csv
import json
import re

import numpy as np
import pytest
import tensorflow as tf
import yaml
from helpers import ROOT, commit_all, copy_repository, run, stages_run, try_to_run
from sklearn import metrics


def test_the_pipeline_writes_what_the_readme_says(pipeline):
    def header(name):
        return (pipeline / "plots" / name).read_text().splitlines()[0]

    assert header("history.csv") == (
        "epoch,train_loss,validation_loss,train_accuracy,validation_accuracy"
    )
    assert header("confusion.csv") == "actual,predicted,count"
    assert header("per_class.csv") == "label,accuracy,error_rate,count,low,high"
    assert header("mistakes.csv") == "index,label,predicted,confidence"
    assert header("calibration.csv") == "confidence,accuracy,count"
    assert header("label_distribution.csv") == "split,label,count"
    assert header("activations.csv") == "x,relu,softmax"
    assert set(json.loads((pipeline / "metrics/train.json").read_text())) == {
        "train_loss",
        "train_accuracy",
        "validation_loss",
        "validation_accuracy",
        "train_epochs",
    }
    assert set(json.loads((pipeline / "metrics/evaluate.json").read_text())) == {
        "test_accuracy",
        "test_accuracy_low",
        "test_accuracy_high",
        "test_balanced_accuracy",
        "test_loss",
        "test_calibration_error",
        "litert_accuracy",
        "litert_differences",
    }
    assert len((pipeline / "plots/activations.csv").read_text().splitlines()) == 202


def test_the_figures_of_a_run_agree_with_one_another(pipeline):
    def rows(name):
        text = (pipeline / "plots" / name).read_text()
        return list(csv.DictReader(text.splitlines()))

    evaluated = json.loads((pipeline / "metrics/evaluate.json").read_text())
    confusion = rows("confusion.csv")
    right = sum(int(r["count"]) for r in confusion if r["actual"] == r["predicted"])
    assert len(confusion) == len({(r["actual"], r["predicted"]) for r in confusion})
    assert [r["actual"] for r in confusion[:10]] == [str(n) for n in range(10)]
    assert all(int(r["count"]) for r in confusion[10:])
    assert sum(int(r["count"]) for r in confusion) == 360
    assert round(right / 360, 6) == evaluated["test_accuracy"]
    assert len(rows("mistakes.csv")) == 360 - right
    assert sum(int(r["count"]) for r in rows("per_class.csv")) == 360
    assert sum(int(r["count"]) for r in rows("calibration.csv")) == 360
    accuracies = [float(r["accuracy"]) for r in rows("per_class.csv")]
    assert accuracies == sorted(accuracies)
    counts = {}
    for row in rows("label_distribution.csv"):
        counts[row["split"]] = counts.get(row["split"], 0) + int(row["count"])
    assert counts == {"train": 1137, "validation": 300, "test": 360}


def test_the_evaluation_agrees_with_scikit_learn(pipeline):
    labels = np.load(pipeline / "data/raw/test/labels.npy")
    images = np.load(pipeline / "data/raw/test/images.npy")
    loaded = tf.saved_model.load(str(pipeline / "models/saved_model"))
    answers = loaded.signatures["serving_default"](images=tf.constant(images))
    probabilities = answers["probabilities"].numpy().astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = answers["classes"].numpy()

    counts = np.zeros([10, 10])
    for row in csv.DictReader(
        (pipeline / "plots/confusion.csv").read_text().splitlines()
    ):
        counts[int(row["actual"]), int(row["predicted"])] = int(row["count"])
    evaluated = json.loads((pipeline / "metrics/evaluate.json").read_text())
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(labels, predicted))
    assert np.any(counts != counts.T)
    assert evaluated["test_loss"] == pytest.approx(
        metrics.log_loss(labels, probabilities), abs=1e-5
    )


def test_nothing_is_left_to_do_or_to_commit(pipeline):
    assert "up to date" in run("dvc", "status", cwd=pipeline)
    assert stages_run(run("dvc", "repro", cwd=pipeline)) == []
    assert run("git", "status", "--porcelain", cwd=pipeline) == ""


@pytest.mark.slow
def test_a_forced_run_with_another_hash_seed_leaves_every_byte(workspace, tmp_path):
    output = run(
        "dvc",
        "repro",
        "--force",
        cwd=workspace,
        PYTHONHASHSEED="1",
        TFDS_DATA_DIR=str(tmp_path),
    )

    stages = yaml.safe_load((workspace / "dvc.yaml").read_text())["stages"]
    assert sorted(stages_run(output)) == sorted(stages)
    assert run("git", "status", "--porcelain", cwd=workspace) == ""


@pytest.mark.slow
@pytest.mark.usefixtures("real_commands", "digit_model")
def test_the_evaluation_of_mnist_is_the_same_on_one_core_as_on_two(tmp_path):
    """Not so with as many threads as cores: confidences differ in their last digits."""
    copy_repository(tmp_path)
    (tmp_path / "models").mkdir(exist_ok=True)
    for name in ("data/tfrecords", "models/saved_model", "models/litert"):
        (tmp_path / name).symlink_to(ROOT / name)

    for cores in ("0", "0,1"):
        run(
            *("taskset", "--cpu-list", cores, "python", "-m", "stages.evaluate"),
            cwd=tmp_path,
        )
        assert (
            run("git", "status", "--porcelain", "metrics", "plots", cwd=tmp_path) == ""
        )


def test_diffs_need_neither_cache_nor_remote(workspace, tmp_path):
    seeds = workspace / "plots/seeds.csv"
    seeds.write_text("metric,seed,value,mean,low,high\ntest_loss,1,2,2,nan,nan\n")
    commit_all(workspace, "Seeds")
    metrics = workspace / "metrics/evaluate.json"
    accuracy = json.loads(metrics.read_text())["test_accuracy"]
    metrics.write_text(metrics.read_text().replace(str(accuracy), "0.125"))
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 1\n", "epochs: 7\n"))
    commit_all(workspace, "Another result")
    clone = tmp_path / "clone"
    run("git", "clone", "--quiet", str(workspace), str(clone), cwd=tmp_path)
    run("git", "reset", "--quiet", "--hard", "HEAD~2", cwd=workspace)

    revisions = ("HEAD~1", "HEAD")
    metrics_diff = run("dvc", "metrics", "diff", "--json", *revisions, cwd=clone)
    params_diff = run("dvc", "params", "diff", "--json", *revisions, cwd=clone)
    plots_diff = run("dvc", "plots", "diff", "--json", *revisions, cwd=clone)
    run("dvc", "plots", "diff", *revisions, cwd=clone)
    assert "vegaEmbed(" in (clone / "dvc_plots/index.html").read_text()
    # As `make` sets it up, the page needs no network either.
    run("python", "-m", "core_mlp.reporting.plots_page", cwd=clone)
    page_template = ("plots.html_template", "plots_page.html")
    run("dvc", "config", "--local", *page_template, cwd=clone)
    run("dvc", "plots", "diff", *revisions, cwd=clone)

    change = json.loads(metrics_diff)["metrics/evaluate.json"]["test_accuracy"]
    assert (change["old"], change["new"]) == (accuracy, 0.125)
    assert json.loads(params_diff)["params.yaml"]["epochs"]["new"] == 7
    plots = json.loads(plots_diff)
    assert "errors" not in plots
    declared = re.findall(r"- (plots/[\w.]+)", (ROOT / "dvc.yaml").read_text())
    assert sorted(plots["data"]) == sorted(declared)
    page = (clone / "dvc_plots/index.html").read_text()
    assert page.count("vegaEmbed(") >= 6
    assert not re.findall(r"<script[^>]+src=", page)
    # Without seeds on one side, and on both.
    for others, number in ((["HEAD~2", "HEAD"], 1), (["HEAD~2", "HEAD~2"], 0)):
        run("dvc", "plots", "diff", *others, cwd=clone)
        page = (clone / "dvc_plots/index.html").read_text()
        assert page.count('"Results by seed"') == number
        assert page.count('"Images per class"') == 1


def test_a_bad_value_ends_the_stage_in_one_line_and_checkout_brings_all_back(workspace):
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 1", "epochs: abc"))

    result = try_to_run("dvc", "repro", cwd=workspace)

    assert result.returncode != 0
    errors = [line for line in result.stdout.splitlines() if "error:" in line]
    assert errors == [
        "error: params.yaml: epochs = 'abc': input should be a valid integer"
    ]
    assert "Traceback" not in result.stdout
    run("git", "checkout", "--quiet", ".", cwd=workspace)
    run("dvc", "checkout", "--quiet", cwd=workspace)
    assert "up to date" in run("dvc", "status", cwd=workspace)


@pytest.mark.parametrize("folder", ["src/core_mlp/training", "src/core_mlp/pipeline"])
def test_what_editors_and_tools_leave_beside_the_code_changes_nothing(
    workspace, folder
):
    beside = workspace / folder
    names = (
        *(".loop.py.swp", "loop.py~", "#loop.py#", ".#loop.py", "4913", "loop.py.orig"),
        *(
            "loop.py.rej",
            "loop.patch",
            ".DS_Store",
            "Thumbs.db",
            "notes.md",
            "loop.pyc",
        ),
        *("__pycache__/loop.cpython-311.pyc", ".ipynb_checkpoints/loop-checkpoint.py"),
        *(".mypy_cache/3.11/loop.json", ".idea/misc.xml", "loop.py.un~"),
    )
    for name in names:
        path = beside / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")

    assert "up to date" in run("dvc", "status", cwd=workspace)

    (beside / "module.py").write_text("x = 1\n")
    assert "changed deps" in run("dvc", "status", cwd=workspace)
