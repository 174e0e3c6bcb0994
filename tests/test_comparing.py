"""Differences between models, against SciPy's distributions and by simulation."""

import numpy as np
import pytest
from scipy import stats

from core_mlp import comparing


@pytest.mark.parametrize(
    ("fixed", "broken"), [(9, 2), (2, 9), (40, 41), (0, 5), (7, 7)]
)
def test_the_paired_difference_agrees_with_the_distributions(fixed, broken):
    found = comparing.paired_difference(fixed, broken, 1000)

    different = fixed + broken
    tail = stats.binom.cdf(min(fixed, broken), different, 0.5)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))
    assert found.value == (fixed - broken) / 1000
    # Clopper and Pearson by way of the beta distribution.
    low = stats.beta.ppf(0.025, fixed, broken + 1) if fixed else 0.0
    high = stats.beta.ppf(0.975, fixed + 1, broken) if broken else 1.0
    assert found.low == pytest.approx((2 * low - 1) * different / 1000)
    assert found.high == pytest.approx((2 * high - 1) * different / 1000)


def test_the_interval_leaves_out_zero_just_when_the_test_is_significant():
    for fixed in range(30):
        for broken in range(30):
            found = comparing.paired_difference(fixed, broken, 100)
            assert found.is_significant == (not found.low <= 0 <= found.high)


def simulate(gain):
    """Returns the verdicts of 1,000 pairs of models that differ in 2 % of images."""
    rng = np.random.default_rng(0)
    both = 0.02
    shares = [(both + gain) / 2, (both - gain) / 2, 1 - both]
    counts = rng.multinomial(10_000, shares, size=1000)
    found = [comparing.paired_difference(f, b, 10_000) for f, b, _ in counts]
    return [np.sign(d.value) * d.is_significant for d in found]


def test_equal_models_are_seldom_called_different():
    assert np.count_nonzero(simulate(gain=0.0)) <= 60


def test_a_gain_of_half_a_point_is_mostly_called_better():
    verdicts = simulate(gain=0.005)

    assert verdicts.count(1) >= 800
    assert verdicts.count(-1) == 0


def test_holms_correction_by_hand():
    adjusted = comparing.adjust_p_values([0.04, 0.01, 0.5, 0.9, 0.02])

    assert adjusted == pytest.approx([0.12, 0.05, 1.0, 1.0, 0.08])


def test_the_summary_over_seeds_by_the_formulas():
    values = [0.97, 0.98, 0.985, 0.975]

    found = comparing.summarise(values)

    mean = sum(values) / 4
    sd = (sum((v - mean) ** 2 for v in values) / 3) ** 0.5
    half = stats.t.ppf(0.975, 3) * sd / 2
    assert found == pytest.approx((mean, sd, mean - half, mean + half))


def test_the_difference_of_means_by_welchs_formulas():
    old, new = [0.97, 0.98, 0.985, 0.975], [0.99, 0.985, 0.995]

    found = comparing.difference_of_means(old, new)

    parts = [np.var(v, ddof=1) / len(v) for v in (old, new)]
    error = sum(parts) ** 0.5
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    value = np.mean(new) - np.mean(old)
    half = stats.t.ppf(0.975, freedom) * error
    p_value = 2 * stats.t.sf(abs(value / error), freedom)
    assert found == pytest.approx((value, value - half, value + half, p_value))
