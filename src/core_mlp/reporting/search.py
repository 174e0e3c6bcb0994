"""Reports a search for parameters, as report.md and report.html."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from core_mlp.evaluation.plots import fixed_style, shorten
from core_mlp.pipeline.files import write_csv, write_text
from core_mlp.reporting.document import picture, render, to_html
from core_mlp.reporting.report import HTML, MARKDOWN
from core_mlp.reporting.significance import difference_of_means
from core_mlp.reporting.sweep import selection_bias, to_png

# What is drawn of a trial, by its outcome.
MARKERS = {"finished": "o", "stopped": "x"}
# A logarithmic axis of this range or more has a label for each power of ten only.
MANY_LABELS = 200
MAX_NAME = 20  # Characters of a value under an axis.


class TrialResult(NamedTuple):
    """What became of a trial.

    Attributes:
      trial: Its number, from 0, in the order in which they started.
      outcome: "finished", "stopped" early, or "failed".
      epochs: How many it trained.
      accuracy: On the validation split, after the last of them; None if it failed.
      loss: The same in nats; None unless it finished.
      settings: By parameter, the value as text.
    """

    trial: int
    outcome: str
    epochs: int
    accuracy: float | None
    loss: float | None
    settings: dict[str, str]


class SearchResult(NamedTuple):
    """The results of a search.

    Attributes:
      dataset: What was trained on.
      command: The command that runs the best setting as an experiment.
      trials: All trials that have ended. The best one is first; it has finished.
      importances: By parameter, by how much it changes the accuracy; in all 1.
      log_scaled: The parameters that are drawn on a logarithmic axis.
      chosen: Validation accuracies of the best setting with new seeds.
      present: Those of params.yaml as it is, with the same seeds.
    """

    dataset: str
    command: str
    trials: list[TrialResult]
    importances: dict[str, float]
    log_scaled: set[str]
    chosen: list[float]
    present: list[float]


def write_search(result: SearchResult) -> None:
    """Writes the report of a search, and prints its first lines."""
    text = render_text(result).splitlines()
    rows = [
        [
            trial.trial,
            trial.outcome,
            trial.epochs,
            _decimals(trial.accuracy),
            _decimals(trial.loss),
            *trial.settings.values(),
        ]
        for trial in result.trials
    ]
    parameters = list(result.trials[0].settings)
    pictures = [("Validation accuracy by trial", picture(draw_trials(result)))]
    for key in parameters:
        image = picture(draw_parameter(result, key))
        pictures.append((f"Validation accuracy by {key}", image))
    if result.importances:
        image = picture(draw_importances(result.importances))
        pictures.append(("Importance of the parameters", image))
    values = {
        "text": text,
        "command": result.command,
        "parameters": parameters,
        "rows": rows,
    }
    write_text(MARKDOWN, render("search.md", **values, pictures=[]))
    page = render("search.md", **values, pictures=pictures)
    write_text(HTML, to_html(text[0], page))
    print(f"Wrote {MARKDOWN} and {HTML}")
    print(*text[:2], result.command, *text[2:], sep="\n")


def render_text(result: SearchResult) -> str:
    """Returns what came out, and how far it can be trusted."""
    outcomes = Counter(trial.outcome for trial in result.trials)
    bias = is_better = None
    if min(len(result.chosen), len(result.present)) > 1:
        difference = difference_of_means(result.present, result.chosen)
        bias = selection_bias(len(result.trials) - outcomes["failed"], difference.sd)
        is_better = difference.value > 0
    return render(
        "search.txt",
        best=result.trials[0],
        result=result,
        outcomes=outcomes,
        bias=bias,
        is_better=is_better,
    )


def write_trials(path: Path, trials: Sequence[TrialResult]) -> None:
    """Writes all trials as a CSV, in the order in which they started."""
    rows = [
        trial._replace(
            accuracy=_decimals(trial.accuracy),
            loss=_decimals(trial.loss),
            settings=" ".join(f"{k}={v}" for k, v in trial.settings.items()),
        )
        for trial in sorted(trials, key=lambda trial: trial.trial)
    ]
    write_csv(path, rows, TrialResult)


@fixed_style
def draw_trials(result: SearchResult) -> bytes:
    """Draws the validation accuracy by trial, and the best one so far, as PNG."""
    figure, axes = _make_axes()
    _scatter(axes, result.trials, [trial.trial for trial in result.trials])
    finished = sorted(t for t in result.trials if t.outcome == "finished")
    best = list(accumulate((trial.accuracy for trial in finished), max))
    numbers = [trial.trial for trial in finished]
    axes.step(numbers, best, where="post", color="0.5", label="best so far")
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside upper center", ncols=4)
    return to_png(figure)


@fixed_style
def draw_parameter(result: SearchResult, key: str) -> bytes:
    """Draws the validation accuracy by the value of a parameter, as PNG."""
    ended = [trial for trial in result.trials if trial.accuracy is not None]
    trials = sorted(ended, key=lambda trial: trial.settings[key])
    texts = [trial.settings[key] for trial in trials]
    figure, axes = _make_axes()
    try:
        values = [float(text) for text in texts]
        _scatter(axes, trials, values)
        if key in result.log_scaled:
            axes.set_xscale("log")
            is_wide = max(values) >= MANY_LABELS * min(values)
            axes.xaxis.set_major_locator(LogLocator(subs=[1] if is_wide else [1, 2, 5]))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
    except ValueError:  # Not numbers.
        _scatter(axes, trials, [shorten(text, MAX_NAME) for text in texts])
    axes.set_xlabel(key)
    figure.legend(loc="outside upper center", ncols=4)
    return to_png(figure)


@fixed_style
def draw_importances(importances: Mapping[str, float]) -> bytes:
    """Draws a bar per parameter, the most important one on top, as PNG."""
    names = sorted(importances, key=importances.get)
    figure = Figure(figsize=(6, 1.0 + 0.4 * len(names)), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names, [importances[name] for name in names])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlabel="share of the variation among good trials", xlim=(0, 1.1))
    return to_png(figure)


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _make_axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.set_ylabel("validation accuracy")
    axes.grid(alpha=0.3)
    return figure, axes


def _scatter(axes: Axes, trials: Sequence[TrialResult], x: Sequence) -> None:
    """Draws trials that finished as dots, and those that were stopped as crosses."""
    for outcome, marker in MARKERS.items():
        points = [
            (value, trial.accuracy)
            for value, trial in zip(x, trials, strict=True)
            if trial.outcome == outcome
        ]
        if points:
            axes.scatter(*zip(*points, strict=True), marker=marker, label=outcome)
