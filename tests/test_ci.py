"""CI: the checks of dvc.lock, metrics and plots, and the workflow."""

import hashlib
import json
import math
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
        ("dvc.yaml", "stages:", "stages: [", "error: dvc status: './dvc.yaml' is inv"),
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


def test_data_that_was_edited_is_found(clone):
    (clone / "models/litert").mkdir()
    (clone / "models/litert/model.tflite").write_bytes(b"another")

    result = check_lock(clone)
    shutil.rmtree(clone / "models/litert")

    assert result.returncode == 1
    assert "evaluate: changed deps: models/litert: modified\n" in result.stdout


@pytest.mark.parametrize(
    ("stage", "arguments", "problem"),
    [
        ("export", [], "evaluate: deps: models/saved_model: not the output of its st"),
        ("fetch", ["--after-run"], "fetch: data/raw: "),
        ("preprocess", ["--after-run"], "preprocess: plots/label_distribution.csv: "),
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


def test_an_output_that_the_run_does_not_have_is_found(clone):
    lock = clone / "dvc.lock"
    document = yaml.safe_load(lock.read_text())
    del document["stages"]["fetch"]["outs"][-1]
    lock.write_text(yaml.safe_dump(document))

    result = check_lock(clone, "--after-run")
    run("git", "checkout", "--quiet", ".", cwd=clone)

    assert result.returncode == 1
    assert re.search(r"^fetch: data/raw: \w+.dir -> None$", result.stdout, re.M)


def test_other_weights_than_committed_are_printed(clone):
    """They differ between processors."""
    lock = clone / "dvc.lock"
    document = yaml.safe_load(lock.read_text())
    document["stages"]["train"]["outs"][-1]["md5"] = "0" * 32
    lock.write_text(yaml.safe_dump(document))

    result = check_lock(clone, "--after-run")
    run("git", "checkout", "--quiet", ".", cwd=clone)

    assert result.returncode == 0
    assert re.search(r"^train: plots/history.csv: \w+ -> 0{32}$", result.stdout, re.M)


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


def with_added(**changes):
    """Returns an edit that adds to numbers of a JSON file."""

    def edit(text):
        old = json.loads(text)
        return with_metrics(**{key: old[key] + changes[key] for key in changes})(text)

    return edit


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
        r"^ *(dvc repro .*evaluate)$", (ROOT / ".ci/run").read_text(), re.M
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


def test_a_project_in_a_subfolder_of_a_repository_is_checked(fresh, tmp_path):
    folder = shutil.copytree(fresh, tmp_path / "larger" / "project")
    shutil.rmtree(folder / ".git")
    run("git", "init", "--quiet", cwd=folder.parent)
    commit_all(folder.parent, "A larger repository")

    assert check_results(folder).returncode == 0
    assert check_lock(folder, "--after-run").returncode == 0
    (folder / "plots/mistakes.csv").unlink()
    assert "plots/mistakes.csv: only in HEAD\n" in check_results(folder).stdout


def test_results_that_only_one_side_has_are_found(fresh):
    (fresh / "plots/mistakes.csv").unlink()
    (fresh / "plots/new.csv").write_text("a\n1\n")
    (fresh / "plots/.DS_Store").touch()

    result = check_results(fresh)

    assert result.returncode == 1
    assert result.stdout.startswith(
        "plots/mistakes.csv: only in HEAD\nplots/new.csv: only here\nerror: "
    )


def train_other_weights(folder, file="metrics/evaluate.json", **metrics):
    """Changes what another kind of processor would change: weights and metrics.

    Args:
      folder: The repository.
      file: Has the metrics.
      metrics: Is added to each.
    """
    lock = folder / "dvc.lock"
    document = yaml.safe_load(lock.read_text())
    for out in document["stages"]["train"]["outs"]:
        if out["path"] == "models/checkpoint":
            out["md5"] = f"{'0' * 32}.dir"
    lock.write_text(yaml.safe_dump(document, sort_keys=False))
    path = folder / file
    path.write_text(with_added(**metrics)(path.read_text()))
    with (folder / "plots/confusion.csv").open("a") as confusion:
        confusion.write("0,0,1\n")
    (folder / "plots/mistakes.png").write_bytes(b"\xff")


@pytest.mark.parametrize(
    ("file", "changes", "problem"),
    [
        ("evaluate", {"test_accuracy": 0.005, "test_loss": -0.01}, ""),
        ("evaluate", {"test_loss": 0.4, "test_calibration_error": 0.1}, ""),
        ("evaluate", {"test_accuracy": 0.2}, "{} in HEAD, {} here: more than "),
        ("evaluate", {"test_accuracy": math.nan}, "{} in HEAD, {} here: more than "),
        ("evaluate", {"test_loss": 3.0}, "{} in HEAD, {} here: more than "),
        ("train", {"train_loss": 0.1, "validation_accuracy": -0.005}, ""),
        ("train", {"train_loss": 3.0}, "{} in HEAD, {} here: more than "),
    ],
)
def test_other_weights_may_differ_by_the_noise_of_training(
    fresh, file, changes, problem
):
    path = f"metrics/{file}.json"
    old = json.loads((fresh / path).read_text())
    train_other_weights(fresh, path, **changes)
    new = json.loads((fresh / path).read_text())

    result = check_results(fresh)

    assert result.returncode == bool(problem), result.stdout
    if problem:
        (name,) = changes
        assert f"{path}: {name}: {problem.format(old[name], new[name])}" in (
            result.stdout
        )
        assert "(5 sd of a difference, by the size of the test split)" in result.stdout


def write_losses(folder, losses):
    """Writes plots/history.csv with an epoch for each train loss."""
    history = folder / "plots/history.csv"
    header, row = history.read_text().splitlines()[:2]
    rest = row.split(",", 2)[2]
    rows = [f"{epoch},{loss},{rest}" for epoch, loss in enumerate(losses, start=1)]
    history.write_text("\n".join([header, *rows]) + "\n")


@pytest.mark.parametrize(
    ("losses", "problem"),
    [([9.9, 2.4], ""), ([2.4, 9.9], "train_loss: 2.3 in HEAD, 9.9 here: more than ")],
)
def test_other_weights_may_differ_by_noise_in_the_last_epoch(fresh, losses, problem):
    write_losses(fresh, [2.4, 2.3])
    commit_all(fresh, "Two epochs")
    train_other_weights(fresh)
    write_losses(fresh, losses)

    result = check_results(fresh)

    assert result.returncode == bool(problem), result.stdout
    assert problem in result.stdout


def test_other_weights_give_the_same_metrics(fresh):
    train_other_weights(fresh)
    file = fresh / "metrics/evaluate.json"
    file.write_text(with_metrics(test_top_2_accuracy=0.2)(file.read_text()))

    result = check_results(fresh)

    assert result.returncode == 1
    assert "metrics/evaluate.json: other metrics than in HEAD\n" in result.stdout


@pytest.mark.parametrize(("accuracy", "code"), [(0.981, 0), (0.98, 1)])
def test_a_model_without_mistakes_has_the_noise_of_one_mistake(fresh, accuracy, code):
    """Of 360 test images: 5 sqrt(2) / 360 = 0.0196."""
    edit = with_metrics(test_accuracy=accuracy, test_loss=0.03)
    forge(fresh, "metrics/evaluate.json", edit)
    train_other_weights(fresh, test_accuracy=1.0 - accuracy, test_loss=-0.01)

    result = check_results(fresh)

    assert result.returncode == code, result.stdout


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


def test_seeds_that_agree_say_nothing_about_the_noise_of_training(fresh):
    seeds = {"summary": {"test_accuracy": {"mean": 0.9, "sd": 0.0}}}
    (fresh / "metrics/seeds.json").write_text(json.dumps(seeds))
    commit_all(fresh, "Seeds")
    train_other_weights(fresh, test_accuracy=0.005)

    assert check_results(fresh).returncode == 0


def test_with_other_weights_the_plots_of_the_data_stay_the_same(fresh):
    train_other_weights(fresh)
    with (fresh / "plots/data_problems.csv").open("a") as file:
        file.write("train,x,1\n")

    result = check_results(fresh)

    assert result.returncode == 1
    assert "plots/data_problems.csv: differs from HEAD\nerror: " in result.stdout


@pytest.mark.parametrize(
    ("path", "edit", "is_rounding"),
    [
        ("metrics/evaluate.json", with_added(test_loss=1e-6), True),
        ("metrics/evaluate.json", with_added(test_loss=0.001), False),
        ("plots/activations.csv", lambda t: t.replace("1.3e-05", "1.2e-05"), True),
        ("plots/activations.csv", lambda t: t.replace("1.3e-05", "2.3e-05"), False),
        ("plots/mistakes.csv", lambda t: t.replace("predicted", "prediction"), False),
        ("plots/mistakes.csv", lambda t: f"{t}0,1,2,0.5\n", False),
    ],
)
def test_weights_from_a_remote_may_be_evaluated_with_other_rounding(
    fresh, path, edit, is_rounding
):
    text = (fresh / path).read_text()
    assert edit(text) != text
    (fresh / path).write_text(edit(text))
    (fresh / "plots/mistakes.png").write_bytes(b"\xff")

    result = check_results(fresh, "--pulled")

    line = f"{path}: differs from HEAD by more than rounding\n"
    assert (line in result.stdout) == (not is_rounding), result.stdout
    assert result.returncode == (not is_rounding)
    assert check_results(fresh).returncode == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("dvc.lock", "<<<<<<< HEAD\n"),
        ("dvc.lock", "stages: [\n"),
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
