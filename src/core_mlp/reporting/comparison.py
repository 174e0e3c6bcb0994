"""Compares two runs: their settings over seeds, and their models image by image."""

from dataclasses import dataclass, field
from typing import Literal

from core_mlp.reporting.runs import Run, SeedRun
from core_mlp.reporting.significance import Difference, difference_of_means


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same test images.

    Attributes:
      status: Whether the settings are compared over seeds, or why not.
      reason: The same in words.
      advice: What to do about it; empty if there is nothing to do.
      metrics: Difference of the settings by metric, over seeds.
      classes: Difference of the settings in test accuracy by class, over seeds.
      fixed: Indices of the images that only the new model classifies correctly.
      broken: Indices of the images that only the old model classifies correctly.
    """

    status: Literal[
        "compared",
        "no result changed",
        "same settings",
        "cannot be compared",
        "not decided",
    ]
    reason: str = ""
    advice: str = ""
    metrics: dict[str, Difference] = field(default_factory=dict)
    classes: dict[str, Difference] = field(default_factory=dict)
    fixed: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)


def compare(base: Run, head: Run) -> Comparison:
    """Compares the settings of two runs over seeds, and the models by image."""
    if base.test_split != head.test_split:
        return Comparison(
            status="cannot be compared",
            reason=(
                f"They were tested on different images: {base.name} on {base.count:,} "
                f"of {base.params['dataset']}, {head.name} on {head.count:,} of "
                f"{head.params['dataset']}"
            ),
            advice="compare runs on the same test split",
        )
    metrics, classes = {}, {}
    advice = ""
    if (base.metrics, base.mistakes) == (head.metrics, head.mistakes):
        status = "no result changed"
        reason = "No result changed"
    elif base.identity == head.identity:
        status = "same settings"
        reason = "Both have the same settings, so any difference is noise"
    elif len(base.results) == len(head.results) == 1:
        status = "not decided"
        reason = "Each side has one seed, which does not show the noise of training"
        stale = [run.name for run in (base, head) if run.seeds]
        if stale:
            reason += (
                f" (metrics/seeds.json of {' and '.join(stale)} is from other "
                "parameters, code or data)"
            )
        advice = (
            "run core-mlp seeds 20 on one side, better on both, and commit the result"
        )
    else:
        status = "compared"
        reason = ""
        metrics, classes = compare_seeds(base.results, head.results)
    return Comparison(
        status=status,
        reason=reason,
        advice=advice,
        metrics=metrics,
        classes=classes,
        fixed=sorted(base.mistakes.keys() - head.mistakes.keys()),
        broken=sorted(head.mistakes.keys() - base.mistakes.keys()),
    )


def compare_seeds(
    old: list[SeedRun], new: list[SeedRun]
) -> tuple[dict[str, Difference], dict[str, Difference]]:
    """Compares two settings over seeds, by metric and by class."""
    metrics = _differences([r.metrics for r in old], [r.metrics for r in new])
    # Per-class accuracy has too many outliers to compare a single seed.
    if len(old) == 1 or len(new) == 1:
        return metrics, {}
    return metrics, _differences([r.classes for r in old], [r.classes for r in new])


def _differences(
    old: list[dict[str, float]], new: list[dict[str, float]]
) -> dict[str, Difference]:
    """Compares each value that all results of both sides have."""
    keys = [key for key in new[0] if all(key in result for result in [*old, *new])]
    return {
        key: difference_of_means(
            [result[key] for result in old], [result[key] for result in new]
        )
        for key in keys
    }
