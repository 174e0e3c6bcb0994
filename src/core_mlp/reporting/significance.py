"""Is a difference more than noise? Statistics over seeds, with SciPy only.

Training with another seed is another draw from the same distribution, so two settings
are compared by the means over their seeds. The number of images on which two models
differ says nothing about that.

Whoever runs more seeds until the verdict suits them would be wrong too often if each
verdict were wrong in 5 % of cases. So verdicts are taken at fixed numbers of seeds, the
looks, and the interval at each look is wide enough for all of them together to be
wrong in 5 % of cases.

References:
  Jennison and Turnbull, 1999: Group sequential methods with applications to clinical
  trials, chapter 9 (repeated confidence intervals).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from core_mlp.pipeline.files import DECIMALS

# Seeds per side at each look, and the probability that its interval misses the true
# difference. benchmarks/noise/decide.py measures that all five together miss in 5 %.
LOOKS = {3: 0.0038, 5: 0.0076, 8: 0.0105, 12: 0.013, 20: 0.032}
MIN_SEEDS = min(LOOKS)
MAX_SEEDS = max(LOOKS)
POWER = 0.8
# Numbers are rounded when they are written: smaller differences do not count.
RESOLUTION = 1.5 * 10.0**-DECIMALS


class Summary(NamedTuple):
    """A metric over seeds.

    Attributes:
      mean: Its mean.
      sd: Its sample standard deviation.
      low: Lower end of the t interval of the mean, at the level of `level_of`; None if
        there are too few seeds.
      high: The upper end.
    """

    mean: float
    sd: float
    low: float | None
    high: float | None


class Difference(NamedTuple):
    """Difference of two means, new minus old, and how well it is known.

    Attributes:
      value: The difference.
      error: Its standard error; 0 if all seeds of each side agree; then nothing can be
        concluded.
      df: Degrees of freedom of the t distribution.
      sd: Standard deviation of one seed's result, of both sides pooled; 0 if unknown.
      level: Probability that the interval misses the true difference at this look; 0 if
        there are too few seeds for a look: then nothing can be concluded either.
    """

    value: float
    error: float
    df: float
    sd: float
    level: float

    @property
    def is_unchanged(self) -> bool:
        """Whether all seeds of both sides agree."""
        return not self.error and abs(self.value) <= RESOLUTION

    @property
    def is_known(self) -> bool:
        """Whether there is an interval: a look, and a spread."""
        return bool(self.error and self.level)

    def interval(self) -> tuple[float, float]:
        """Returns the ends of the interval, which are infinite if there is none."""
        if not self.is_known:
            return -math.inf, math.inf
        return stats.t.interval(1 - self.level, self.df, self.value, self.error)

    @property
    def p_value(self) -> float:
        """Two-sided p-value of no true difference, to be compared with `level`."""
        return 2 * min(self.p_below(0.0), 1 - self.p_below(0.0))

    def p_below(self, threshold: float) -> float:
        """Returns the one-sided p-value of a true difference of `threshold` or more."""
        if not self.is_known:
            return 0.5
        return float(stats.t.cdf((self.value - threshold) / self.error, self.df))

    @property
    def detectable(self) -> float:
        """Smallest true difference that this look would find in 80 % of repetitions.

        An approximation, good for ten seeds per side or more.

        References:
          Bloom, 1995: Minimum detectable effects.
        """
        if not self.is_known:
            return math.inf
        quantiles = stats.t.ppf([1 - self.level / 2, POWER], self.df)
        return float(sum(quantiles) * self.error)

    def verdict(self, margin: float) -> str:
        """Returns "better", "worse", "equivalent" within a margin, or "not decided".

        Better means a higher value.
        """
        low, high = self.interval()
        if low > 0 or high < 0:
            return "better" if low > 0 else "worse"
        return "equivalent" if -margin < low and high < margin else "not decided"

    def seeds_to_decide(self, margin: float) -> int | None:
        """Returns at which look it would be settled if this is the true difference.

        None means at none, or that the spread is unknown.
        """
        for number, level in LOOKS.items():
            quantile = stats.t.ppf(1 - level / 2, 2 * (number - 1))
            half_width = quantile * self.sd * (2 / number) ** 0.5
            value = abs(self.value)
            if self.sd and (value > half_width or value + half_width < margin):
                return number
        return None


def last_look(number: int) -> int:
    """Returns the last look that a number of seeds reaches; 0 if they are too few.

    >>> [last_look(number) for number in (2, 3, 7, 20, 100)]
    [0, 3, 5, 20, 20]
    """
    return max((look for look in LOOKS if look <= number), default=0)


def level_of(number: int) -> float:
    """Returns the level of the last look that a number of seeds reaches, or 0.

    >>> level_of(2), level_of(4), level_of(100)
    (0.0, 0.0038, 0.032)
    """
    return LOOKS.get(last_look(number), 0.0)


def summarize(values: Sequence[float], level: float | None = None) -> Summary:
    """Summarizes a metric over at least two seeds.

    Args:
      values: The results of the seeds.
      level: Probability that the interval misses the true mean; default: that of the
        last look that so many seeds reach.
    """
    mean = float(np.mean(values))
    sd = variance(values) ** 0.5
    level = level_of(len(values)) if level is None else level
    if not level:
        return Summary(mean, sd, None, None)
    quantile = stats.t.ppf(1 - level / 2, len(values) - 1)
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
    """Compares a metric over the same number of seeds per side, by Welch's t test.

    If the numbers differ, the result has no level, and so concludes nothing: with few
    seeds against many, the test is wrong too often, because it trusts the spread of
    the few. With one seed against several, the spread of the several stands for both.

    References:
      Welch, 1947: The generalization of Student's problem when several different
      population variances are involved.
    """
    known = [variance(values) for values in (old, new) if len(values) > 1]
    variances = known * 2 if len(known) == 1 else known or [0.0, 0.0]
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
        level=level_of(len(old)) if len(old) == len(new) else 0.0,
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
