"""Is a difference more than noise? Statistics over seeds, with SciPy only.

Training with another seed is another draw from the same distribution, so two settings
are compared by the means over their seeds. The number of images on which two models
differ says nothing about that.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from core_mlp.evaluation.metrics import CONFIDENCE_LEVEL
from core_mlp.pipeline.files import DECIMALS

POWER = 0.8
MAX_SEEDS = 1000
# Numbers are rounded when they are written: smaller differences do not count.
RESOLUTION = 1.5 * 10.0**-DECIMALS


class Summary(NamedTuple):
    """Mean and sample standard deviation over seeds; 95 % t interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float


class Difference(NamedTuple):
    """Difference of two means, new minus old, and how well it is known.

    Attributes:
      value: The difference.
      error: Its standard error; 0 if all seeds of each side agree; then nothing can be
        concluded.
      df: Degrees of freedom of the t distribution.
      sd: Standard deviation of one seed's result, of both sides pooled.
    """

    value: float
    error: float
    df: float
    sd: float

    @property
    def is_unchanged(self) -> bool:
        """Whether all seeds of both sides agree."""
        return not self.error and abs(self.value) <= RESOLUTION

    def interval(self) -> tuple[float, float]:
        """Returns the ends of the 95 % t interval."""
        if not self.error:
            return -math.inf, math.inf
        return stats.t.interval(CONFIDENCE_LEVEL, self.df, self.value, self.error)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no true difference."""
        return 2 * min(self.p_below(0.0), 1 - self.p_below(0.0))

    def p_below(self, threshold: float) -> float:
        """Returns the one-sided p-value of a true difference of `threshold` or more."""
        if not self.error:
            return 0.5
        return float(stats.t.cdf((self.value - threshold) / self.error, self.df))

    @property
    def detectable(self) -> float:
        """Smallest true difference that would be significant in 80 % of repetitions.

        References:
          Bloom, 1995: Minimum detectable effects.
        """
        if not self.error:
            return math.inf
        quantiles = stats.t.ppf([(1 + CONFIDENCE_LEVEL) / 2, POWER], self.df)
        return float(sum(quantiles) * self.error)

    def verdict(self, margin: float) -> str:
        """Returns "better", "worse", "equivalent" within a margin, or "not decided"."""
        low, high = self.interval()
        if low > 0 or high < 0:
            return "better" if low > 0 else "worse"
        return "equivalent" if -margin < low and high < margin else "not decided"

    def seeds_to_decide(self, margin: float) -> int | None:
        """Returns how many seeds per side would settle it if this is the true value.

        None means more than a thousand.
        """
        number = np.arange(2, MAX_SEEDS + 1)
        # As if one side had all of the variance, the worst case of Welch's test.
        quantile = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, number - 1)
        half_width = quantile * self.sd * np.sqrt(2 / number)
        value = abs(self.value)
        decided = (value > half_width) | (value + half_width < margin)
        return int(number[decided][0]) if self.sd and decided.any() else None


def summarize(values: Sequence[float]) -> Summary:
    """Summarizes a metric over at least two seeds."""
    mean = float(np.mean(values))
    sd = variance(values) ** 0.5
    quantile = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, len(values) - 1)
    half_width = float(quantile) * sd / len(values) ** 0.5
    return Summary(mean, sd, mean - half_width, mean + half_width)


def variance(values: Sequence[float]) -> float:
    """Returns the sample variance; 0 if the values differ by rounding only.

    >>> variance([0.972222] * 7), variance([0.5, 0.500001]), variance([0.0, 1.0])
    (0.0, 0.0, 0.5)
    """
    if np.ptp(values) <= RESOLUTION:
        return 0.0
    return float(np.var(values, ddof=1))


def difference_of_means(old: Sequence[float], new: Sequence[float]) -> Difference:
    """Compares a metric over seeds, by Welch's t test; one side needs two or more.

    If one side has only one seed, the standard deviation of the other stands for both.

    References:
      Welch, 1947: The generalization of Student's problem when several different
      population variances are involved.
    """
    known = [variance(values) for values in (old, new) if len(values) > 1]
    variances = known * 2 if len(known) == 1 else known
    parts = [v / len(values) for v, values in zip(variances, (old, new), strict=True)]
    df = max(len(old), len(new)) - 1
    if len(known) == 2 and sum(parts):
        weights = [p**2 / (len(v) - 1) for p, v in zip(parts, (old, new), strict=True)]
        df = sum(parts) ** 2 / sum(weights)
    return Difference(
        value=float(np.mean(new) - np.mean(old)),
        error=float(sum(parts) ** 0.5),
        df=float(df),
        sd=float(np.mean(variances) ** 0.5),
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
