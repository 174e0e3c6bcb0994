"""Draws the seeds of both sides and their difference, for report.html.

HTML with small SVGs: positions are percentages, so that text keeps its size on a narrow
page, and lines have the color of the page's text, light or dark.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from core_mlp.pipeline.text import visible
from core_mlp.reporting import document
from core_mlp.reporting.comparison import Comparison
from core_mlp.reporting.runs import Run, SeedRun, improves_upwards
from core_mlp.reporting.significance import (
    MIN_SEEDS,
    RESOLUTION,
    summarize,
    variance,
)

# As on the page of `dvc plots`: of base and head.
COLORS = ("#3b82c4", "#e07b27")
MAX_INTERVALS = 5  # Between the ticks of an axis.
MAX_DECIMALS = 6
PADDING = 6  # Left and right of an axis, in percent of the width.


class Axis(NamedTuple):
    """A horizontal axis.

    Attributes:
      low: Value at its left end.
      high: Value at its right end.
      ticks: Values that are labeled.
      decimals: Decimals of their labels.
    """

    low: float
    high: float
    ticks: list[float]
    decimals: int

    @classmethod
    def of(cls, values: Sequence[float], low: float, high: float) -> Self:
        """Returns an axis for all values that are within `low` and `high`.

        >>> Axis.of([0.9805, 0.985, 1.02], 0.0, 1.0).ticks
        [0.985, 0.99, 0.995, 1.0]
        """
        start, end = np.clip([min(values), max(values)], low, high).tolist()
        if end - start <= RESOLUTION:
            start, end = start - 0.001, end + 0.001
        locator = MaxNLocator(MAX_INTERVALS, steps=[1, 2, 2.5, 5, 10])
        ticks = [
            round(tick, MAX_DECIMALS)
            for tick in locator.tick_values(start, end).tolist()
        ]
        return cls(
            low=start,
            high=end,
            ticks=[tick for tick in ticks if start <= tick <= end],
            decimals=max(map(_count_decimals, ticks)),
        )

    def percent(self, value: float) -> float:
        """Returns where a value is; at an end of the axis if it is beyond it."""
        share = (min(max(value, self.low), self.high) - self.low) / (
            self.high - self.low
        )
        return round(PADDING + (100 - 2 * PADDING) * share, 2)


class Side(NamedTuple):
    """The seeds of one side.

    Attributes:
      name: The run's name.
      color: Color of its points.
      seeds: The seeds.
      values: A metric of each.
      mean: The mean of the values.
      interval: The ends of the interval of the mean; None if there are too few seeds,
        or all agree.
    """

    name: str
    color: str
    seeds: list[int]
    values: list[float]
    mean: float
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, run: Run, results: Sequence[SeedRun], metric: str, color: str) -> Self:
        """Summarizes a metric of a side."""
        values = [result.metrics[metric] for result in results]
        interval = None
        if len(values) >= MIN_SEEDS and variance(values):
            summary = summarize(values)
            interval = (summary.low, summary.high)
        return cls(
            name=visible(run.name),
            color=color,
            seeds=[result.seed for result in results],
            values=values,
            mean=float(np.mean(values)),
            interval=interval,
        )


def draw_seeds(
    base: Run, head: Run, comparison: Comparison, *, metric: str, margin: float
) -> Markup:
    """Draws each seed of both sides, and the difference of the means, as HTML.

    Args:
      base: The run to compare with.
      head: The run to report on.
      comparison: The comparison of the two.
      metric: The metric.
      margin: The difference within which two accuracies are equivalent.

    Returns:
      One line of HTML; empty if no side has several seeds with this metric.
    """
    difference = comparison.metrics.get(metric)
    sizes = len(comparison.base_results), len(comparison.head_results)
    if difference is None or max(sizes) < 2:
        return Markup("")
    sides = [
        Side.of(base, comparison.base_results, metric, COLORS[0]),
        Side.of(head, comparison.head_results, metric, COLORS[1]),
    ]
    shown = [v for side in sides for v in [*side.values, *(side.interval or [])]]
    is_accuracy = metric.endswith("accuracy")
    # The difference of accuracies is in points, as in the verdict.
    unit = 100 if is_accuracy else 1
    interval = difference.interval() if difference.is_known else None
    changes = [0.0, difference.value, *(interval or [])]
    if is_accuracy:
        changes += [-margin, margin]
    html = document.render(
        "seeds.html",
        metric=metric.replace("_", " "),
        sides=sides,
        axis=Axis.of(shown, 0.0, 1.0 if is_accuracy else np.inf),
        difference=difference,
        interval=interval,
        margin=margin if is_accuracy else 0.0,
        difference_axis=Axis.of([unit * c for c in changes], -np.inf, np.inf),
        unit=unit,
        improves_upwards=improves_upwards(metric),
        min_seeds=MIN_SEEDS,
    )
    # On one line, since a blank line would end the HTML within Markdown.
    return Markup(" ".join(html.split()))


def _count_decimals(value: float) -> int:
    """Returns how many decimals it takes to write a number, at most MAX_DECIMALS.

    >>> [_count_decimals(value) for value in (20.0, 0.5, -0.975)]
    [0, 1, 3]
    """
    return len(f"{value:.{MAX_DECIMALS}f}".rstrip("0").partition(".")[2])
