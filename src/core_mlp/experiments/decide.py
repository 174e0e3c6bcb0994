"""Decides whether a change is better, with as few trainings as that takes."""

import time
from typing import NamedTuple

from core_mlp.experiments.runner import require_all, run_experiments, say
from core_mlp.experiments.seeds import (
    SEEDS_FILE,
    Setting,
    read_seeds,
    run_seeds_of,
    say_metric,
    write_seeds,
)
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.params import Params, load_params
from core_mlp.reporting import gate, report
from core_mlp.reporting.comparison import Comparison, compare
from core_mlp.reporting.runs import read_run
from core_mlp.reporting.significance import LOOKS, MAX_SEEDS, MIN_SEEDS, last_look

# With any other status of a comparison, seeds would not help.
OPEN = ("compared", "first impression")


class Budget(NamedTuple):
    """What a decision may cost.

    Attributes:
      max_seeds: No look is at more seeds per side.
      jobs: How many experiments run at a time.
      minutes: No experiment starts after so many.
    """

    max_seeds: int = MAX_SEEDS
    jobs: int = 1
    minutes: float = float("inf")


UNLIMITED = Budget()


class Sides(NamedTuple):
    """The two settings, and what decides between them.

    Attributes:
      base: What to compare with.
      head: What to decide on.
      metric: The metric that decides.
      margin: The difference within which two accuracies are equivalent.
    """

    base: Setting
    head: Setting
    metric: str
    margin: float

    @property
    def num_seeds(self) -> int:
        """How many seeds both sides have at least."""
        return min(len(self.base.results), len(self.head.results))

    def compare(self) -> Comparison:
        """Compares the results so far."""
        return compare(self.base.run_with_seeds(), self.head.run_with_seeds())

    def train(self, look: int, *, jobs: int, deadline: float) -> None:
        """Runs what is missing on either side until a look, and adds the results."""
        # By seed, so that both sides advance together.
        missing = {
            side.task(seed): side
            for seed in range(1, look + 1)
            for side in (self.base, self.head)
            if seed in side.missing(look)
        }
        outcomes = run_experiments(list(missing), jobs=jobs, deadline=deadline)
        for outcome in require_all(outcomes):
            missing[outcome.task].add(outcome.run)
            say_metric(outcome, self.metric)


def decide(
    base: str,
    head: str | None,
    *,
    metric: str = "test_accuracy",
    budget: Budget = UNLIMITED,
) -> report.Report:
    """Trains both sides with more and more seeds until their difference is clear.

    Writes report.md and report.html and, if head is the workspace, its results to
    metrics/seeds.json. May be interrupted: it goes on from the experiments it has run.

    Args:
      base: The revision to compare with. Its gate.yaml has the margin.
      head: The revision to decide on; None for the workspace.
      metric: The metric that decides.
      budget: What it may cost.

    Returns:
      The report, with the verdict.

    Raises:
      InputError: If a revision cannot be read, the metric or the budget makes no sense,
        or an experiment fails.
    """
    if not MIN_SEEDS <= budget.max_seeds <= MAX_SEEDS:
        raise InputError(
            f"--max-seeds {budget.max_seeds}: expected {MIN_SEEDS} to {MAX_SEEDS}, the "
            "numbers of seeds per side that are compared"
        )
    if head is None:
        dataset = load_params(Params).dataset  # Before anything runs.
    deadline = time.monotonic() + 60 * budget.minutes
    rules, edits = gate.load_rules(base, head)
    sides = Sides(Setting(base), Setting(head), metric, rules.max_accuracy_loss)
    check_metric(sides.base, metric)
    if head is None:
        check_dataset(sides.base, dataset)
        run_seeds_of(sides.head, [1])
        sides.head.reuse(read_seeds(SEEDS_FILE))
    check_metric(sides.head, metric)
    if sides.compare().status in OPEN:
        train_until_clear(sides, budget, deadline)
    if head is None and len(sides.head.results) > 1:
        write_seeds(SEEDS_FILE, sides.head.seeds())
    result = report.make_report(
        sides.base.run_with_seeds(),
        sides.head.run_with_seeds(),
        rules,
        edits=edits,
        metric=metric,
    )
    report.write_files(result)
    if head is None:
        warn_if_stale(sides.head)
    say(f"{result.verdict.title}. {result.verdict.finding}".strip())
    if result.verdict.advice:
        say(result.verdict.advice)
    return result


def train_until_clear(sides: Sides, budget: Budget, deadline: float) -> None:
    """Trains until a look decides, or no look is left, or the time is over."""
    first = max(MIN_SEEDS, last_look(sides.num_seeds))
    for look in LOOKS:
        if not first <= look <= budget.max_seeds:
            continue
        sides.train(look, jobs=budget.jobs, deadline=deadline)
        if sides.num_seeds < look:
            say(f"Stopped after {budget.minutes:g} minutes; the same command goes on.")
            return
        comparison = sides.compare()
        verdict = comparison.verdict(sides.metric, sides.margin)
        difference = comparison.metrics[sides.metric]
        interval = "no interval"
        if difference.is_known:
            interval = "{:+.4f} to {:+.4f}".format(*difference.interval())
        say(f"{look} seeds per side: {difference.value:+.4f} ({interval}): {verdict}")
        if verdict != "not decided":
            return


def check_metric(side: Setting, metric: str) -> None:
    """Keeps the results that have a metric.

    Raises:
      InputError: If runs do not have it, or it is not one that is compared.
    """
    known = side.run.own_result.metrics
    if metric not in known:
        raise InputError(
            f"--metric {metric}: {side.name} has {', '.join(sorted(known))}"
        )
    side.results = {
        seed: result
        for seed, result in side.results.items()
        if metric in result.metrics
    }


def check_dataset(base: Setting, dataset: str) -> None:
    """Raises InputError if the workspace has another dataset than the base."""
    of_base = base.run.params["dataset"]
    if of_base != dataset:
        raise InputError(
            f"params.yaml: dataset = {dataset}: {base.name} has {of_base}, so nothing "
            "can be compared: commit results of this dataset, and decide against them"
        )


def warn_if_stale(setting: Setting) -> None:
    """Says if the results in the workspace are not those of its files."""
    try:
        is_stale = read_run(None).identity != setting.run.identity
    except InputError:
        is_stale = True
    if is_stale:
        say("The workspace's own results are out of date: run `dvc repro` to commit.")
