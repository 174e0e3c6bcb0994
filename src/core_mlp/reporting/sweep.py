"""Ranks the experiments of a sweep by validation, as report.md and report.html."""

import io
import statistics
from collections import defaultdict
from itertools import chain
from typing import Any

from matplotlib.figure import Figure
from scipy import stats

from core_mlp.evaluation.plots import fixed_style
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import write_text
from core_mlp.reporting.document import format_value, picture, render, to_html
from core_mlp.reporting.git import resolve, run_git
from core_mlp.reporting.report import HTML, MARKDOWN
from core_mlp.reporting.runs import Run, read_run

ACCURACIES = ("validation_accuracy", "test_accuracy")


def write_sweep() -> None:
    """Ranks DVC's experiments on the current commit, and the commit itself.

    Raises:
      InputError: If there are no experiments, or one cannot be read.
    """
    commit = resolve("HEAD")
    pattern = f"refs/exps/{commit[:2]}/{commit[2:]}"
    refs = run_git("for-each-ref", "--format=%(refname)", pattern).decode().split()
    if not refs:
        raise InputError(f"no experiments have started from this commit, {commit[:8]}")
    experiments = [read_run(ref, ref.split("/")[-1]) for ref in refs]
    write_ranking([read_run("HEAD"), *experiments])


def write_ranking(runs: list[Run]) -> None:
    """Ranks runs by validation, as report.md and report.html, and prints the best."""
    # Accuracies on different images say nothing about the settings.
    by_images = defaultdict(list)
    for run in runs:
        by_images[run.test_split].append(run)
    rankings = [rank_runs(group) for group in by_images.values()]
    write_text(MARKDOWN, render("sweep.md", rankings=rankings, pictures=False))
    page = render("sweep.md", rankings=rankings, pictures=True)
    write_text(HTML, to_html(rankings[0]["text"][0], page))
    print(f"Wrote {MARKDOWN} and {HTML}")
    for ranking in rankings:
        print(*ranking["text"], sep="\n")


def rank_runs(runs: list[Run]) -> dict[str, Any]:
    """Returns what sweep.md needs to rank the settings of runs on the same images."""
    settings = defaultdict(list)
    for run in runs:
        settings[run.identity].append(run)
    ranked = sorted(settings.values(), key=by_validation)
    swept = [
        key
        for key in runs[0].params
        if key != "seed" and len({str(run.params[key]) for run in runs}) > 1
    ]
    rows = [
        [
            ", ".join(run.name for run in group[:3]) + (" …" if group[3:] else ""),
            len(group),
            *(f"{_mean(group, metric):.4f}" for metric in ACCURACIES),
            *(group[0].params[key] for key in swept),
        ]
        for group in ranked
    ]
    return {
        "text": describe_selection(ranked).splitlines(),
        "swept": swept,
        "rows": rows,
        "pictures": [(key, picture(draw_parameter(ranked, key))) for key in swept],
    }


def by_validation(group: list[Run]) -> tuple[float, float]:
    """Sort key of settings: by accuracy, and if equally accurate, by loss."""
    return -_mean(group, "validation_accuracy"), _mean(group, "validation_loss")


def _mean(group: list[Run], metric: str) -> float:
    return statistics.fmean(run.metrics[metric] for run in group)


def describe_selection(ranked: list[list[Run]]) -> str:
    """Returns by how much choosing the best overstates its validation accuracy."""
    sd = bias = 0.0
    runs = list(chain.from_iterable(ranked))
    seeds = next((run for run in runs if len(run.results) > 1), None)
    if seeds:
        sd = statistics.stdev(r.metrics[ACCURACIES[0]] for r in seeds.results)
        bias = selection_bias(len(ranked), sd)
    with_commit = "HEAD" in [run.name for run in runs]
    return render(
        "sweep.txt",
        ranked=ranked,
        with_commit=with_commit,
        seeds=seeds,
        sd=sd,
        bias=bias,
    )


def selection_bias(number: int, sd: float) -> float:
    """Returns by how much the best of equal settings seems better than it is.

    This is Blom's approximation of the expected maximum of normal variables.

    Args:
      number: How many settings there are.
      sd: The standard deviation of one's result over seeds.
    """
    return stats.norm.ppf((number - 0.375) / (number + 0.25)) * sd


@fixed_style
def draw_parameter(ranked: list[list[Run]], key: str) -> bytes:
    """Draws validation and test accuracy of each run by one parameter, as PNG."""

    def by_value(run: Run) -> tuple:
        return run.params[key] is not None, run.params[key]

    runs = sorted(chain.from_iterable(ranked), key=by_value)
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    axes = figure.subplots()
    for metric, marker in zip(ACCURACIES, ("o", "x"), strict=True):
        values = [run.metrics[metric] for run in runs]
        label = metric.replace("_", " ")
        keys = [format_value(run.params[key]) for run in runs]
        axes.scatter(keys, values, marker=marker, label=label)
    axes.set(xlabel=key, ylabel="accuracy")
    axes.grid(alpha=0.3)
    axes.legend()
    return to_png(figure)


def to_png(figure: Figure) -> bytes:
    """Returns a figure as PNG."""
    file = io.BytesIO()
    figure.savefig(file, dpi=120)
    return file.getvalue()
