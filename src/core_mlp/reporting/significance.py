"""Significance tests for two classifiers; NumPy and SciPy only.

Both classified the same test examples. An example that only the new one classifies
correctly is *fixed*, one that only the old one does is *broken*; the others carry no
information about the difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from core_mlp.evaluation.metrics import CONFIDENCE_LEVEL


class Difference(NamedTuple):
    """New minus old, the ends of its 95 % interval, and a two-sided p-value."""

    value: float
    low: float
    high: float
    p_value: float

    @property
    def is_significant(self) -> bool:
        """Whether the p-value is below 0.05."""
        return self.p_value < 1 - CONFIDENCE_LEVEL


class Summary(NamedTuple):
    """Mean and sample standard deviation over seeds; 95 % t interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float


def paired_difference(num_fixed: int, num_broken: int, count: int) -> Difference:
    """Compares two accuracies on the same examples, by McNemar's exact test.

    The interval is Agresti and Min's: Wald's, with half an example added to each of the
    four cells (both correct, fixed, broken, both wrong). Unlike Wald's own it is
    accurate when few examples differ. Near zero, test and interval may disagree.

    >>> paired_difference(0, 0, 100).p_value
    1.0

    Args:
      num_fixed: Examples that only the new classifier has correct.
      num_broken: Examples that only the old classifier has correct.
      count: All examples.

    References:
      McNemar, 1947: Note on the sampling error of the difference between correlated
      proportions or percentages.
      Agresti & Min, 2005: Simple improved confidence intervals for comparing matched
      proportions.
    """
    net, num_different = num_fixed - num_broken, num_fixed + num_broken
    p_value = 1.0
    if num_different:
        p_value = float(stats.binomtest(num_fixed, num_different).pvalue)
    total = count + 2
    variance = (num_different + 1 - net**2 / total) / total**2
    low, high = stats.norm.interval(CONFIDENCE_LEVEL, net / total, variance**0.5)
    return Difference(
        net / count, max(-1.0, float(low)), min(1.0, float(high)), p_value
    )


def adjust_p_values(p_values: Sequence[float]) -> list[float]:
    """Corrects p-values for their number, by Holm's method.

    >>> adjust_p_values([0.01, 0.5, 0.03])
    [0.03, 0.5, 0.06]

    References:
      Holm, 1979: A simple sequentially rejective multiple test procedure.
    """
    order = np.argsort(p_values)
    steps = np.arange(len(p_values), 0, -1) * np.asarray(p_values)[order]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted.tolist()


def summarize(values: Sequence[float]) -> Summary:
    """Summarizes a metric over at least two seeds."""
    mean, error = np.mean(values), stats.sem(values)
    low, high = stats.t.interval(CONFIDENCE_LEVEL, len(values) - 1, mean, error)
    return Summary(float(mean), float(np.std(values, ddof=1)), float(low), float(high))


def difference_of_means(old: Sequence[float], new: Sequence[float]) -> Difference:
    """Compares a metric over seeds, by Welch's t test.

    If neither side varies, there is no noise and any difference is significant.

    Args:
      old: A value per seed, at least two.
      new: A value per seed, at least two.

    References:
      Welch, 1947: The generalization of Student's problem when several different
      population variances are involved.
    """
    value = float(np.mean(new) - np.mean(old))
    if np.ptp(old) == np.ptp(new) == 0:
        return Difference(value, value, value, float(value == 0))
    test = stats.ttest_ind(new, old, equal_var=False)
    low, high = test.confidence_interval(CONFIDENCE_LEVEL)
    return Difference(value, float(low), float(high), float(test.pvalue))
