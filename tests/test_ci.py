"""CI: the checks of dvc.lock, metrics and plots, and the workflow."""

import hashlib
import json
import re
import shutil

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
        ("dvc.yaml", "    - models/litert", "    - models/new", "export: changed o"),
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


def forge(folder, path, edit, stage="evaluate"):
    """Edits a result and its hash in dvc.lock, and commits both."""
    file = folder / path
    old = file.read_text()
    new = edit(old)
    assert new != old
    file.write_text(new)
    lock = folder / "dvc.lock"
    document = yaml.safe_load(lock.read_text())
    (out,) = [o for o in document["stages"][stage]["outs"] if o["path"] == path]
    out |= {"md5": hashlib.md5(new.encode()).hexdigest(), "size": len(new)}
    lock.write_text(yaml.safe_dump(document, sort_keys=False))
    commit_all(folder, "Forged")
    return old


def with_metrics(**changes):
    """Returns an edit of a JSON file."""
    return lambda text: json.dumps(json.loads(text) | changes, indent=2) + "\n"


@pytest.fixture
def fresh(clone, tmp_path):
    """Another clone, for one test, with the results that a run gives."""
    return shutil.copytree(clone, tmp_path / "fresh")


def check_results(folder, *arguments):
    result = try_to_run("python", ".ci/check_results.py", *arguments, cwd=folder)
    assert "Traceback" not in result.stdout
    return result


def test_results_that_the_evaluation_gives_again_pass(fresh):
    result = check_results(fresh)

    assert result.returncode == 0, result.stdout
    assert result.stdout == "The evaluation gave the metrics and plots in HEAD\n"


@pytest.mark.parametrize(
    ("path", "stage", "edit"),
    [
        ("metrics/evaluate.json", "evaluate", with_metrics(test_accuracy=0.99)),
        ("metrics/evaluate.json", "evaluate", with_metrics(note="good")),
        ("plots/confusion.csv", "evaluate", lambda text: f"{text}0,0,1\n"),
        ("plots/calibration.csv", "evaluate", lambda text: f"{text}0.5,0.5,1\n"),
        ("metrics/train.json", "train", with_metrics(train_loss=0.0)),
        (
            "plots/label_distribution.csv",
            "preprocess",
            lambda text: text + "train,x,1\n",
        ),
    ],
)
def test_a_forged_result_is_found_although_dvc_lock_agrees(fresh, path, stage, edit):
    true = forge(fresh, path, edit, stage)
    # Formatted as the stage would write it.
    (fresh / path).write_bytes(true.encode())

    result = check_results(fresh)

    assert result.returncode == 1
    assert f"{path}: differs from HEAD\n" in result.stdout
    assert "run `dvc repro --force` and commit the results" in result.stdout


def test_evaluating_again_finds_a_forged_result_and_restores_a_true_one(
    pipeline, tmp_path
):
    folder = shutil.copytree(pipeline, tmp_path / "again")
    (command,) = re.findall(
        r"^dvc repro .*evaluate$", (ROOT / ".ci/run").read_text(), re.M
    )
    run(*command.split(), cwd=folder)
    assert run("git", "status", "--short", cwd=folder) == ""
    assert check_results(folder).returncode == 0

    forge(folder, "metrics/evaluate.json", with_metrics(test_accuracy=0.99))
    assert check_results(folder).returncode == 0  # Without evaluating again.
    run(*command.split(), cwd=folder)

    result = check_results(folder)
    assert result.returncode == 1
    assert "metrics/evaluate.json: differs from HEAD\n" in result.stdout


def test_results_that_only_one_side_has_are_found(fresh):
    (fresh / "plots/mistakes.csv").unlink()
    (fresh / "plots/new.csv").write_text("a\n1\n")
    (fresh / "plots/.DS_Store").touch()

    result = check_results(fresh)

    assert result.returncode == 1
    assert result.stdout.startswith(
        "plots/mistakes.csv: only in HEAD\nplots/new.csv: only here\nerror: "
    )


def train_other_weights(folder, **metrics):
    """Changes what another kind of processor would change: weights and metrics."""
    lock = folder / "dvc.lock"
    document = yaml.safe_load(lock.read_text())
    for out in document["stages"]["train"]["outs"]:
        if out["path"] == "models/checkpoint":
            out["md5"] = f"{'0' * 32}.dir"
    lock.write_text(yaml.safe_dump(document, sort_keys=False))
    file = folder / "metrics/evaluate.json"
    old = json.loads(file.read_text())
    new = {name: old[name] + change for name, change in metrics.items()}
    file.write_text(with_metrics(**new)(file.read_text()))
    with (folder / "plots/confusion.csv").open("a") as confusion:
        confusion.write("0,0,1\n")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"test_accuracy": 0.005, "test_loss": -0.01}, ""),
        ({"test_accuracy": 0.2}, "test_accuracy: {} in HEAD, {} here: more than "),
        ({"test_loss": 1.5}, "test_loss: {} in HEAD, {} here: more than "),
    ],
)
def test_other_weights_may_differ_by_the_noise_of_training(fresh, changes, problem):
    file = fresh / "metrics/evaluate.json"
    old = json.loads(file.read_text())
    train_other_weights(fresh, **changes)
    new = json.loads(file.read_text())

    result = check_results(fresh)

    assert result.returncode == bool(problem), result.stdout
    if problem:
        (name,) = changes
        line = f"metrics/evaluate.json: {problem.format(old[name], new[name])}"
        assert line in result.stdout
        assert "(5 sd of a difference, by the size of the test split)" in result.stdout


def test_the_noise_of_training_is_that_of_the_seeds_where_there_are_some(fresh):
    seeds = {"summary": {"test_accuracy": {"mean": 0.9, "sd": 0.0001}}}
    (fresh / "metrics/seeds.json").write_text(json.dumps(seeds))
    commit_all(fresh, "Seeds")
    train_other_weights(fresh, test_accuracy=0.005)

    result = check_results(fresh)

    assert result.returncode == 1
    # 5 * sqrt(2) * 0.0001
    assert (
        "more than 0.000707 (5 sd of a difference, by metrics/seeds.json)\n"
        in result.stdout
    )


def test_with_other_weights_the_plots_of_the_data_stay_the_same(fresh):
    train_other_weights(fresh)
    with (fresh / "plots/data_problems.csv").open("a") as file:
        file.write("train,x,1\n")

    result = check_results(fresh)

    assert result.returncode == 1
    assert "plots/data_problems.csv: differs from HEAD\nerror: " in result.stdout


@pytest.mark.parametrize(("change", "problem"), [(1e-6, ""), (0.001, "rounding")])
def test_weights_from_a_remote_may_be_evaluated_with_other_rounding(
    fresh, change, problem
):
    file = fresh / "metrics/evaluate.json"
    loss = json.loads(file.read_text())["test_loss"]
    file.write_text(with_metrics(test_loss=loss + change)(file.read_text()))

    result = check_results(fresh, "--pulled")

    assert result.returncode == bool(problem), result.stdout
    assert problem in result.stdout
    assert check_results(fresh).returncode == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("dvc.lock", "<<<<<<< HEAD\n"),
        ("dvc.lock", "stages: {}\n"),
        ("metrics/evaluate.json", "[]"),
        ("metrics/evaluate.json", "{"),
        ("plots/history.csv", "epoch\n"),
    ],
)
def test_results_that_are_half_files_are_one_line(fresh, path, text):
    train_other_weights(fresh)
    (fresh / path).write_text(text)

    result = check_results(fresh)

    assert result.returncode == 1
    assert re.search(r"^error: ", result.stdout, re.M), result.stdout


def test_the_workflow_pins_its_actions_and_calls_what_exists():
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yaml").read_text())
    makefile = (ROOT / "Makefile").read_text()
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])
                continue
            for target in re.findall(r"\bmake ([\w-]+)", step["run"]):
                assert re.search(rf"^([\w-]+ )*{target}( [\w-]+)*:", makefile, re.M), (
                    target
                )
            for file in re.findall(r"\.ci/[\w.]+", step["run"]):
                assert (ROOT / file).exists()
