"""Compares two runs: their settings over seeds, and their models image by image."""

from dataclasses import dataclass, field
from typing import Literal

from core_mlp.reporting.runs import Run, SeedRun, improves_upwards
from core_mlp.reporting.significance import (
    MIN_SEEDS,
    Difference,
    difference_of_means,
    last_look,
)

OPPOSITE = {"better": "worse", "worse": "better"}


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same test images.

    Attributes:
      status: Whether the settings are compared over seeds, or why not.
      reason: The same in words.
      advice: What to do about it; empty if there is nothing to do.
      base_results: Results of the seeds of the base that are compared.
      head_results: As many results of the other side, if they are compared over seeds.
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
        "first impression",
    ]
    reason: str = ""
    advice: str = ""
    base_results: list[SeedRun] = field(default_factory=list)
    head_results: list[SeedRun] = field(default_factory=list)
    metrics: dict[str, Difference] = field(default_factory=dict)
    classes: dict[str, Difference] = field(default_factory=dict)
    fixed: list[int] = field(default_factory=list)
    broken: list[int] = field(default_factory=list)

    def verdict(self, metric: str, margin: float) -> str:
        """Returns what the comparison says about a metric.

        Args:
          metric: Its name. A margin only makes sense for an accuracy, so that other
            metrics are never equivalent.
          margin: The difference within which two settings are equivalent.

        Returns:
          "better", "worse", "equivalent" or "not decided"; if the settings are not
          compared over seeds, the status.
        """
        if self.status != "compared":
            return self.status
        difference = self.metrics[metric]
        if metric.endswith("accuracy"):
            return difference.verdict(margin)
        verdict = difference.verdict(margin=0.0)
        return verdict if improves_upwards(metric) else OPPOSITE.get(verdict, verdict)


def compare(base: Run, head: Run) -> Comparison:
    """Compares the settings of two runs over seeds, and the models by image.

    Of each side, the first seeds are compared: as many as the last look that both
    sides have reached, see `significance.LOOKS`.
    """
    if base.test_split != head.test_split:
        return Comparison(
            status="cannot be compared",
            reason=f"They were tested on different images: {_tell_apart(base, head)}",
            advice="compare runs on the same test split",
        )
    reason = ""
    base_results, head_results = (
        sorted(run.results, key=lambda result: result.seed) for run in (base, head)
    )
    metrics, classes = {}, {}
    if (base.metrics, base.mistakes) == (head.metrics, head.mistakes):
        status = "no result changed"
        reason = "No result changed"
    elif base.identity == head.identity:
        status = "same settings"
        reason = "Both have the same settings, so any difference is noise"
    else:
        number = last_look(min(len(base_results), len(head_results)))
        if number:
            status = "compared"
            base_results = base_results[:number]
            head_results = head_results[:number]
        else:
            status = "first impression"
            reason = (
                f"A first impression: {MIN_SEEDS} seeds per side are the fewest that "
                f"are compared, {base.name} has {len(base_results)}, {head.name} "
                f"{len(head_results)}"
            )
        metrics, classes = compare_seeds(base_results, head_results)
    return Comparison(
        status=status,
        reason=reason,
        base_results=base_results,
        head_results=head_results,
        metrics=metrics,
        classes=classes,
        fixed=sorted(base.mistakes.keys() - head.mistakes.keys()),
        broken=sorted(head.mistakes.keys() - base.mistakes.keys()),
    )


def _tell_apart(base: Run, head: Run) -> str:
    """Says how two test splits differ."""
    of_base, of_head = (
        f"{run.count:,} of {run.params['dataset']}" for run in (base, head)
    )
    if of_base == of_head:
        return f"both on {of_base}, but its images or their split changed in between"
    return f"{base.name} on {of_base}, {head.name} on {of_head}"


def compare_seeds(
    old: list[SeedRun], new: list[SeedRun]
) -> tuple[dict[str, Difference], dict[str, Difference]]:
    """Compares two settings over seeds, by metric and, from a look on, by class."""
    metrics = _differences([r.metrics for r in old], [r.metrics for r in new])
    if not last_look(min(len(old), len(new))):
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
