"""Decisions, with made-up results instead of trainings."""

import json

import numpy as np
import pytest
from helpers import ROOT, commit_all, core_mlp, run

from core_mlp.experiments import decide, seeds
from core_mlp.experiments.runner import Outcome
from core_mlp.reporting.runs import read_run


class MadeUp:
    """Stands in for the runner.

    Attributes:
      own: The run that main has.
      accuracies: A function from seed to test accuracy, for each side.
      trained: Side and seed of each experiment.
      seconds: What each takes on the clock of `decide`.
    """

    def __init__(self, own):
        self.own = own
        self.accuracies = {}
        self.trained = []
        self.seconds = 0
        self.clock = 0

    def run_experiments(self, tasks, *, jobs=1, deadline=float("inf")):
        for task in tasks:
            if self.clock >= deadline:
                return
            self.clock += self.seconds
            side = task.label.split(" of ")[1]
            seed = int(task.settings[-1].removeprefix("seed="))
            self.trained.append((side, seed))
            yield Outcome(task, self.make_run(side, seed))

    def make_run(self, side, seed):
        accuracy = self.accuracies[side](seed)
        gain = accuracy - self.own.metrics["test_accuracy"]
        loss = self.own.metrics["test_loss"] + gain
        # The workspace has another value of epochs than main.
        changes = {"epochs": 2} if side == "workspace" else {}
        return self.own._replace(
            params=self.own.params | {"seed": seed} | changes,
            metrics=self.own.metrics | {"test_accuracy": accuracy, "test_loss": loss},
            mistakes=self.own.mistakes if side == "main" else {},
        )


@pytest.fixture
def made_up(workspace, monkeypatch):
    """Makes up the results of all seeds; the workspace differs from main."""
    monkeypatch.chdir(workspace)
    found = MadeUp(read_run("main"))
    # Seed 5, which main has, is one of those that a decision needs.
    assert found.own.params["seed"] == 5
    params = workspace / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 1\n", "epochs: 2\n"))
    for module in (decide, seeds):
        monkeypatch.setattr(module, "run_experiments", found.run_experiments)
    monkeypatch.setattr(decide.time, "monotonic", lambda: found.clock)
    return found


def let_differ(made_up, gain, sd=0.001):
    """Lets both sides vary over seeds, main around the result that it has."""
    noise = np.random.default_rng(3).normal(0.0, sd, [2, 100])
    noise[0, 5] = 0.0
    mean = made_up.own.metrics["test_accuracy"]
    for row, side in enumerate(("main", "workspace")):
        made_up.accuracies[side] = lambda seed, row=row: float(
            np.round(mean + row * gain + noise[row, seed], 6)
        )


def test_a_large_gain_is_decided_at_the_first_look(made_up, workspace):
    let_differ(made_up, 0.02)

    result = core_mlp("decide", cwd=workspace)

    assert result.returncode == 0, result.stdout
    # Main has one of three results already.
    assert sorted(made_up.trained) == [
        *[("main", seed) for seed in (1, 2)],
        *[("workspace", seed) for seed in (1, 2, 3)],
    ]
    *_, finding, advice = result.stdout.splitlines()
    assert finding.startswith("main → workspace: better. Test accuracy changed by +")
    assert finding.endswith(
        "from the mean of 3 seeds of main to the mean of 3 seeds of workspace."
    )
    assert advice == "What to do: keep the change."
    assert "\n3 seeds per side: +0.0" in result.stdout
    written = json.loads((workspace / "metrics/seeds.json").read_text())
    assert [row["seed"] for row in written["runs"]] == [1, 2, 3]
    assert "→ workspace: better" in (workspace / "report.md").read_text()


def test_a_loss_fails_and_a_lower_loss_is_better(made_up, workspace):
    let_differ(made_up, -0.02)

    assert core_mlp("decide", cwd=workspace).returncode == 1
    result = core_mlp("decide", "--metric", "test_loss", cwd=workspace)

    assert result.returncode == 0
    assert "workspace: better. Test loss changed by -0.0" in result.stdout


def test_what_is_not_decided_takes_all_looks(made_up, workspace):
    let_differ(made_up, 0.0, sd=0.01)

    result = core_mlp("decide", cwd=workspace)

    assert result.returncode == 3
    looks = [
        int(line.split()[0])
        for line in result.stdout.splitlines()
        if "seeds per side: " in line
    ]
    assert looks == [3, 5, 8, 12, 20]
    assert len(made_up.trained) == 39
    assert "What to do: treat it as no difference; one of " in result.stdout


def test_equal_settings_are_equivalent_once_the_noise_is_small_enough(
    made_up, workspace
):
    let_differ(made_up, 0.0, sd=0.0001)

    result = core_mlp("decide", "--max-seeds", "4", cwd=workspace)

    assert result.returncode == 0
    assert "main → workspace: equivalent. " in result.stdout
    assert len(made_up.trained) == 5


def test_what_is_known_is_not_trained_again(made_up, workspace):
    """Neither what the base has committed, nor what the workspace's file has."""
    let_differ(made_up, 0.0, sd=0.01)
    core_mlp("decide", "--max-seeds", "5", cwd=workspace)
    made_up.trained.clear()

    core_mlp("decide", "--max-seeds", "8", cwd=workspace)

    # One run tells whose results they are. Those of main are experiments.
    assert [n for side, n in made_up.trained if side == "workspace"] == [1, 6, 7, 8]
    run("dvc", "commit", "--quiet", "--force", cwd=workspace)


def test_time_that_is_over_stops_and_says_so(made_up, workspace):
    let_differ(made_up, 0.0, sd=0.01)
    made_up.seconds = 60

    result = core_mlp("decide", "--minutes", "8", cwd=workspace)

    assert result.returncode == 3
    assert len(made_up.trained) == 8
    assert "Stopped after 8 minutes; the same command goes on." in result.stdout
    assert "from the mean of 3 seeds" in result.stdout.splitlines()[-2]


def test_nothing_is_trained_where_seeds_say_nothing(made_up, workspace):
    run("git", "checkout", "--quiet", "params.yaml", cwd=workspace)
    commit_all(workspace, "Nothing but a commit")

    result = core_mlp("decide", "HEAD~1", "HEAD", cwd=workspace)

    assert result.returncode == 0
    assert "no result changed" in result.stdout
    assert not made_up.trained
    run("git", "reset", "--quiet", "--hard", "HEAD~1", cwd=workspace)


def test_results_that_are_not_of_the_base_are_refused(made_up, workspace):
    let_differ(made_up, 0.0)
    made_up.own = made_up.own._replace(inputs=made_up.own.inputs | {"stages": "0"})

    result = core_mlp("decide", cwd=workspace)

    assert result.returncode == 1
    assert result.stdout.splitlines()[-1] == (
        "error: main: its dvc.lock and results are not those of its own code, "
        "parameters or data: run `dvc repro` there and commit the results"
    )


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--max-seeds", "2"], "--max-seeds 2: expected 3 to 20, the numbers of"),
        (["--max-seeds", "21"], "--max-seeds 21: expected 3 to 20, the numbers of"),
        (["--metric", "test_luck"], "--metric test_luck: main has litert_accuracy, "),
        (["--metric", "train_epochs"], "--metric train_epochs: main has litert_acc"),
        (["no-such-branch"], "no-such-branch: no such revision or experiment"),
    ],
)
def test_a_decision_that_makes_no_sense_is_one_line(
    made_up, workspace, arguments, problem
):
    let_differ(made_up, 0.0)

    result = core_mlp("decide", *arguments, cwd=workspace)

    assert result.returncode == 1
    # Before anything has run.
    [line] = result.stdout.splitlines()
    assert line.startswith(f"error: {problem}")


@pytest.mark.parametrize("minutes", ["-1", "0", "nan", "soon"])
def test_a_time_limit_is_above_zero(minutes):
    result = core_mlp(
        "search", "x.yaml", "--trials", "1", "--minutes", minutes, cwd=ROOT
    )

    assert result.returncode == 2
    assert f"{minutes}: expected a number above 0" in result.stdout


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("batch_size: 128", "batch_size: 0", "batch_size = 0: input should be"),
        ("dataset: ", "dataset: my_", "dataset = my_"),
    ],
)
def test_parameters_are_checked_before_anything_runs(
    made_up, workspace, old, new, problem
):
    path = workspace / "params.yaml"
    text = path.read_text()
    path.write_text(text.replace(old, new))

    result = core_mlp("decide", cwd=workspace)

    path.write_text(text)
    [line] = result.stdout.splitlines()
    assert line.startswith(f"error: params.yaml: {problem}")
