"""Searches: a stand-in for train, and the real pipeline."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import ROOT, commit_all, run

from core_mlp.experiments import search
from core_mlp.experiments.runner import Outcome
from core_mlp.experiments.search import run_search
from core_mlp.experiments.space import Space
from core_mlp.experiments.study import Study
from core_mlp.pipeline.errors import InputError
from core_mlp.reporting.search import HTML, MARKDOWN

# Stands in for `python -m core_mlp.experiments.child PID CORES dvc exp run --name
# NAME -S KEY=VALUE ... train`: "trains" nine epochs, best at a learning rate of 0.001.
STAND_IN = f"""\
#!{sys.executable}
import json, math, os, pathlib, sys, time
assert sys.argv[-1] == "train", sys.argv
settings = dict(s.split("=", 1) for s in sys.argv[sys.argv.index("--name") + 2:-1]
                if s != "-S")
rate = float(settings.get("learning_rate", 0.1))
notes = pathlib.Path(os.environ["STAND_INS"])
# DVC restores what is committed.
pathlib.Path("plots").mkdir(exist_ok=True)
pathlib.Path("plots/history.csv").write_text("epoch,validation_accuracy\\n1,1.0\\n")
time.sleep(float(os.environ.get("SECONDS_BEFORE_TRAINING", 0)))
state = pathlib.Path(os.environ["CORE_MLP_STATE_DIR"], "state")
first = int(state.read_text()) if state.exists() else 0
note = " ".join(f"{{k}}={{v}}" for k, v in settings.items())
if settings.get("schedule") == "cosine":
    sys.exit("error: training diverged")
pathlib.Path("metrics").mkdir(exist_ok=True)
state.parent.mkdir(parents=True, exist_ok=True)
rows = []
for epoch in range(1, 10):
    accuracy = (1 - abs(math.log10(rate) + 3) / 10) * (1 - 0.1 / epoch)
    rows.append(f"{{epoch}},0.1,{{1 - accuracy}},0.9,{{accuracy}}")
    if epoch <= first:
        continue
    time.sleep(float(os.environ.get("SECONDS_PER_EPOCH", 0)))
    with open(notes / "epochs", "a") as file:
        file.write(f"{{note}}\\n")
    path = pathlib.Path("plots/history.csv.new")
    path.write_text("epoch,train_loss,validation_loss,train_accuracy,"
                    "validation_accuracy\\n" + "\\n".join(rows) + "\\n")
    path.rename("plots/history.csv")
    print(f"Epoch {{epoch}}/9: 99 images/s", flush=True)
    state.write_text(str(epoch))
metrics = {{"validation_accuracy": accuracy, "validation_loss": 1 - accuracy}}
pathlib.Path("metrics/train.json").write_text(json.dumps(metrics))
"""
SPACE = "learning_rate: {low: 0.00001, high: 0.1, log: true}\nbatch_size: [64, 128]\n"


@pytest.fixture
def space(project):
    """A space in a project that has parameters."""
    params = (ROOT / "tests/params.yaml").read_text()
    added = "schedule: constant\naugmentation:\n  rotation: 0.0\n  shift: 0.0\n"
    (project / "params.yaml").write_text(params + added)
    shutil.copy(ROOT / ".gitignore", project)
    (project / "plots").mkdir()
    (project / "plots/history.csv").write_text("epoch,validation_accuracy\n1,1.0\n")
    (project / "searches").mkdir()
    path = project / "searches/space.yaml"
    path.write_text(SPACE)
    commit_all(project, "Parameters")
    return path


def search_in_process(space, *options):
    """Starts a search in a process of its own, on the same stand-ins."""
    code = (
        "import sys, pathlib; from core_mlp.experiments.search import run_search; "
        "run_search(pathlib.Path(sys.argv[1]), number=int(sys.argv[2]), jobs=2)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(space), *map(str, options)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def epochs_of(notes):
    """Returns, by setting, how many epochs the stand-ins trained."""
    lines = (notes / "epochs").read_text().splitlines()
    return {line: lines.count(line) for line in lines}


def trials_of(space):
    return Study(Space.read(space)).trials()


def test_a_search_finds_a_good_value_and_stops_hopeless_trials(
    space, notes, capsys, monkeypatch
):
    monkeypatch.setenv("SECONDS_PER_EPOCH", "0.1")
    monkeypatch.setenv("SECONDS_BEFORE_TRAINING", "0.3")

    run_search(space, number=24, jobs=2)

    results = Study(Space.read(space)).results()
    assert len(results) == 24
    assert {result.outcome for result in results} == {"finished", "stopped"}
    best = float(results[0].settings["learning_rate"])
    assert 0.0003 < best < 0.003
    assert results[0].accuracy == max(r.accuracy for r in results if r.epochs == 9)
    stopped = [result for result in results if result.outcome == "stopped"]
    assert len(stopped) >= 8
    trained = [n for key, n in epochs_of(notes).items() if "seed=" not in key]
    assert sum(trained) < 0.75 * 9 * 24
    assert {result.epochs for result in stopped} == {1, 3}
    printed = capsys.readouterr().out
    assert "24 trials on sklearn_digits" in printed
    assert f"dvc exp run -S batch_size={results[0].settings['batch_size']}" in printed
    assert f"-S learning_rate={best}" in printed
    assert "The test split was not evaluated." in printed
    # The best setting, and params.yaml as it is, with the same new seeds.
    new = {key.split("seed=")[-1] for key in epochs_of(notes) if "seed=" in key}
    assert new == {"6", "7", "8"}
    assert sum("seed=" in key for key in epochs_of(notes)) == 6
    page = HTML.read_text()
    assert page.count("<img") == 4
    for name in ("by trial", "by learning_rate", "by batch_size", "Importance"):
        assert name in page
    assert MARKDOWN.read_text().count("| stopped |") == len(stopped)
    assert not list(Path(".dvc/tmp/search").iterdir())


def test_the_same_command_adds_nothing_and_more_trials_are_added(space, notes):
    run_search(space, number=2)
    before = epochs_of(notes)

    run_search(space, number=2)
    assert epochs_of(notes) == before

    run_search(space, number=4)
    assert len(trials_of(space)) == 4
    settings = [trial.user_attrs["settings"] for trial in trials_of(space)]
    assert len({tuple(s) for s in settings}) == 4


def test_it_draws_the_same_again(space):
    run_search(space, number=3)
    first = [trial.params for trial in trials_of(space)]
    space.with_suffix(".journal").unlink()

    run_search(space, number=3)

    assert [trial.params for trial in trials_of(space)] == first


@pytest.mark.parametrize(
    "kind", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_search_that_is_killed_goes_on(space, notes, monkeypatch, kind):
    monkeypatch.setenv("SECONDS_PER_EPOCH", "0.2")
    process = search_in_process(space, 6)
    while not (notes / "epochs").exists() or len(epochs_of(notes)) < 3:
        time.sleep(0.05)
        assert process.poll() is None, process.stdout.read()
    process.send_signal(kind)
    process.communicate()

    second = search_in_process(space, 6)
    output = second.communicate()[0]

    assert second.returncode == 0, output
    trials = trials_of(space)
    assert len(trials) == 6
    assert len({tuple(trial.user_attrs["settings"]) for trial in trials}) == 6
    assert all(trial.state.is_finished() for trial in trials)
    # Those that were interrupted went on after their last epoch.
    assert max(epochs_of(notes).values()) <= 10
    assert not list(space.parent.glob("*.worker.lock"))


def test_two_processes_share_a_study(space, notes, monkeypatch):
    monkeypatch.setenv("SECONDS_PER_EPOCH", "0.05")
    processes = [search_in_process(space, 10) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    trials = trials_of(space)
    assert len(trials) == 10
    assert len({tuple(trial.user_attrs["settings"]) for trial in trials}) == 10
    numbers = [set(re.findall(r"^trial (\d+) ", out, re.M)) for out in outputs]
    assert all(numbers)
    assert not numbers[0] & numbers[1]
    # Only the last one checks the best setting.
    assert sum("seed=6: validation" in output for output in outputs) == 1


def test_processes_that_end_together_check_the_best_trial_once(
    space, notes, monkeypatch
):
    with monkeypatch.context() as unchecked:
        unchecked.setattr(search, "check_best", lambda study, jobs: ([], []))
        run_search(space, number=3)
    monkeypatch.setenv("SECONDS_PER_EPOCH", "0.05")
    processes = [search_in_process(space, 3) for _ in range(2)]
    outputs = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0], outputs
    # The number of epochs that each seed was trained.
    trained = {k: n for k, n in epochs_of(notes).items() if "seed=" in k}
    assert len(trained) == 6
    assert set(trained.values()) == {9}
    assert sum("seed=6: validation" in output for output in outputs) == 1
    assert all(f"Wrote {MARKDOWN}" in output for output in outputs)


def test_a_process_without_a_trial_leaves_the_end_to_the_other(
    space, notes, monkeypatch, capsys
):
    monkeypatch.setenv("SECONDS_PER_EPOCH", "0.3")
    other = search_in_process(space, 1)
    while not (notes / "epochs").exists():
        assert other.poll() is None

    run_search(space, number=1)

    assert "Trials still run in another process" in capsys.readouterr().out
    other.terminate()
    other.communicate()


def test_a_trial_that_fails_is_named_and_the_others_go_on(space, capsys):
    space.write_text(
        SPACE.replace("batch_size: [64, 128]", "schedule: [cosine, constant]")
    )

    run_search(space, number=8)

    results = Study(Space.read(space)).results()
    failed = [result for result in results if result.outcome == "failed"]
    assert 0 < len(failed) < 8
    assert len(results) == 8
    printed = capsys.readouterr().out
    assert re.search(
        r"^failed: trial .*: error: training diverged; its log", printed, re.M
    )
    assert f"{len(failed)} failed" in printed


def test_if_all_fail_an_error_says_why(space):
    space.write_text(SPACE + "schedule: [cosine, constant]\n")
    study = Study(Space.read(space))
    study.space.choices["schedule"] = ["cosine"]
    for task in study.tasks(2):
        study.finish(Outcome(task, None, "diverged"))

    assert study.why_none_finished() == "2 trials failed, none has finished: diverged"


def test_a_small_space_ends_when_all_settings_are_tried(space, capsys):
    space.write_text("batch_size: [64, 128]\n")

    run_search(space, number=5)

    assert len(trials_of(space)) == 2
    assert "no new setting in 103 draws" in capsys.readouterr().out


def test_drawing_good_settings_again_and_again_does_not_end_a_search(space):
    space.write_text(
        "learning_rate: [0.1, 0.01, 0.001, 0.0001]\nbatch_size: [8, 16, 32, 64, 128]\n"
        "schedule: [constant, cosine]\n"
    )
    study = Study(Space.read(space))
    for task in study.tasks(30):
        is_good = task.settings[0] == "learning_rate=0.01"
        accuracy = 0.9 if is_good else 0.1
        task.observer.metrics = {
            "validation_accuracy": accuracy,
            "validation_loss": 1 - accuracy,
        }
        study.finish(Outcome(task, None))

    assert len(study.finished()) == 30


def test_no_trial_starts_after_the_time_is_up(space):
    with pytest.raises(InputError, match="give it more --minutes"):
        run_search(space, number=5, minutes=0.0)


@pytest.mark.parametrize("path", ["params.yaml", "src/code.py", "searches/space.yaml"])
def test_a_study_of_something_else_is_refused(space, path):
    run_search(space, number=1)
    for harmless in ("README.md", "recipes/a.yaml", "searches/other.yaml"):
        Path(harmless).parent.mkdir(exist_ok=True)
        Path(harmless).write_text("# A text")
    run_search(space, number=1)

    changed = Path(path)
    text = changed.read_text().replace("[64, 128]", "[64, 256]")
    changed.write_text(text.replace("epochs: 1\n", "epochs: 2\n") + "\n# changed\n")

    with pytest.raises(InputError) as error:
        run_search(space, number=2)
    what = "space" if path.startswith("searches") else rf"state of .* \({path}\)"
    pattern = rf"^{space.with_suffix('.journal')}: its trials are of another {what}: "
    assert re.match(pattern, str(error.value))


def test_a_corrupt_study_is_an_error(space):
    space.with_suffix(".journal").write_text("not JSON\n{}\n")

    with pytest.raises(InputError, match=r"space.journal: corrupt: .*; delete it"):
        run_search(space, number=1)


def test_the_best_setting_is_saved_as_a_recipe(space):
    space.write_text(SPACE + "augmentation.shift: [1, 2.5]\n")
    run_search(space, number=3, name="mine")

    recipe = Path("recipes/mine.yaml").read_text()
    assert recipe.startswith("# The best of 3 trials on sklearn_digits by validation; ")
    best = Study(Space.read(space)).results()[0].settings
    assert f"learning_rate: {best['learning_rate']}" in recipe
    assert f"augmentation:\n  shift: {best['augmentation.shift']}" in recipe
    rows = Path("recipes/mine.csv").read_text().splitlines()
    assert rows[0] == "trial,outcome,epochs,accuracy,loss,settings"
    assert [row.split(",")[0] for row in rows[1:]] == ["0", "1", "2"]

    for name, problem in (("mine", "there is such"), ("../x", "expected letters")):
        with pytest.raises(InputError, match=problem):
            run_search(space, number=30, name=name)
    assert len(trials_of(space)) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "space.yaml: expected a mapping"),
        ("{}", "space.yaml: empty: give a parameter several values"),
        ("- 1", "space.yaml: expected a mapping"),
        ("a: [", "space.yaml, line 1: not valid YAML"),
        ("learning_rat: [1, 2]", "space.yaml: learning_rat: unknown key; the keys are"),
        ("augmentation.x: [1, 2]", "space.yaml: augmentation.x: unknown key"),
        ("seed.x: [1, 2]", "space.yaml: seed.x: unknown key"),
        ("weight_decay: [0.0, 1.0]", "weight_decay: add it to params.yaml first"),
        ("augmentation.scale: [0.0, 0.1]", "augmentation.scale: add it to params.yaml"),
        ("augmentation: {x: [1, 2]}", "space.yaml: augmentation.x: unknown key"),
        ("augmentation: {rotation: 3}", "augmentation.rotation = 3: expected a list"),
        ("augmentation: [1, 2]", "space.yaml: augmentation = 1: "),
        ("learning_rate: [0.1, 2.0]", "space.yaml: learning_rate = 2.0: input should"),
        ("learning_rate: {low: 0.1, high: 2}", "space.yaml: learning_rate = 2: input"),
        ("batch_size: {low: 0, high: 5}", "space.yaml: batch_size = 0: input should"),
        ("batch_size: {low: 1.5, high: 5}", "space.yaml: batch_size = 1.5: input"),
        (
            "batch_size: {low: 1, high: 9, step: 0.5}",
            "batch_size: step = 0.5: expected",
        ),
        ("epochs: [1]", "space.yaml: epochs = [1]: expected two choices or more"),
        ("epochs: [1, 1]", "space.yaml: epochs = [1, 1]: has a value twice"),
        ("epochs: 3", "space.yaml: epochs = 3: expected a list of choices, or {low"),
        ("epochs: {low: 1}", "space.yaml: epochs: high: Field required; expected"),
        ("epochs: {low: 1, high: 2, a: 1}", "space.yaml: epochs: a: Extra inputs"),
        ("epochs: {low: 2, high: 1}", "space.yaml: epochs: low has to be below high"),
        ("epochs: {low: 1, high: .nan}", "epochs: "),
        ("epsilon: {low: 0, high: 1, log: true}", "with log, low has to be above"),
        ("epochs: {low: 1, high: 9, log: true, step: 2}", "log and step exclude each"),
        ("epochs: {low: 1, high: 9, step: 0}", "step has to be above 0"),
        ("schedule: {low: constant, high: cosine}", "space.yaml: schedule: low"),
        ("seed: [1, 2]", "space.yaml: seed: a search does not vary dataset, "),
        ("quantize: [true, false]", "quantize: it does not change the validation"),
    ],
)
def test_a_bad_space_is_one_line(space, text, problem):
    space.write_text(text)

    with pytest.raises(InputError) as error:
        Space.read(space)

    assert problem in str(error.value)
    assert "\n" not in str(error.value)


class Drawn:
    """Stands in for a trial of Optuna: always the same fraction of each range."""

    def __init__(self, value):
        self.value = value

    def suggest_float(self, _key, low, high, log, step):
        return low + (high - low) * self.value

    def suggest_int(self, _key, low, high, log, step):
        return low + step * round((high - low) // step * self.value)

    def suggest_categorical(self, _key, choices):
        return choices[round((len(choices) - 1) * self.value)]


def test_drawn_values_are_what_one_would_type(space):
    space.write_text(
        "learning_rate: {low: 0.000123456, high: 0.01}\n"
        "augmentation: {rotation: {low: 0, high: 20}}\n"
        "batch_size: {low: 32, high: 256, step: 32}\n"
        "hidden_sizes: [[300], [700, 500]]\n"
    )
    found = Space.read(space)

    assert found.draw(Drawn(0.0)) == (
        "hidden_sizes=[300]",
        "learning_rate=0.000123456",  # Rounded, it would be below the range.
        "augmentation.rotation=0.0",
        "batch_size=32",
    )
    assert found.draw(Drawn(1 / 3)) == (
        "hidden_sizes=[300]",
        "learning_rate=0.00342",
        "augmentation.rotation=6.67",
        "batch_size=96",
    )
    assert found.draw(Drawn(1.0))[0] == "hidden_sizes=[700,500]"


@pytest.mark.slow
def test_the_real_pipeline_is_searched_without_evaluating(workspace):
    (workspace / "stages/evaluate.py").write_text("raise SystemExit('evaluated')")
    (workspace / "stages/export.py").write_text("raise SystemExit('exported')")
    (workspace / "searches").mkdir()
    (workspace / "searches/a.yaml").write_text(
        "epochs: [3, 4]\nlearning_rate: {low: 1.0e-5, high: 0.01, log: true}\n"
    )
    before = run("git", "status", "--porcelain", cwd=workspace)
    experiments = run("git", "for-each-ref", "refs/exps", cwd=workspace)

    output = run(
        *("core-mlp", "search", "../searches/a.yaml", "--trials", "4", "--jobs", "2"),
        cwd=workspace / "docs",
    )

    assert "Best of 4 trials on sklearn_digits" in output
    assert "\nWith 3 new seeds: 0." in output
    assert run("git", "status", "--porcelain", cwd=workspace) == before
    assert run("git", "for-each-ref", "refs/exps", cwd=workspace) == experiments
