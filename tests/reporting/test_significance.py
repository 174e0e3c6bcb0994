"""Differences between models, against SciPy's distributions and by simulation."""

import numpy as np
import pytest
from scipy import stats

from core_mlp.reporting import significance


@pytest.mark.parametrize(
    ("fixed", "broken"), [(9, 2), (2, 9), (40, 41), (0, 5), (7, 7)]
)
def test_the_paired_difference_agrees_with_the_distributions(fixed, broken):
    found = significance.paired_difference(fixed, broken, 1000)

    different = fixed + broken
    tail = stats.binom.cdf(min(fixed, broken), different, 0.5)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))
    assert found.value == (fixed - broken) / 1000
    # Wald's interval of the mean of +1, -1 and 0, with half an example in each cell.
    shares = np.array([fixed + 0.5, broken + 0.5, 1000 - different + 1]) / 1002
    mean = shares @ [1, -1, 0]
    error = ((shares @ [1, 1, 0] - mean**2) / 1002) ** 0.5
    assert found.low == pytest.approx(mean - stats.norm.ppf(0.975) * error)
    assert found.high == pytest.approx(mean + stats.norm.ppf(0.975) * error)


@pytest.mark.parametrize(
    ("share_fixed", "share_broken", "count"),
    [
        (0.01, 0.01, 10_000),
        (0.01, 0.002, 10_000),
        (0.03, 0.01, 10_000),
        (0.02, 0.001, 1000),
        (0.65, 0.02, 360),
        (0.1, 0.01, 360),
    ],
)
def test_the_interval_holds_the_true_difference_in_95_of_100(
    share_fixed, share_broken, count
):
    rng = np.random.default_rng(0)
    shares = [share_fixed, share_broken, 1 - share_fixed - share_broken]
    found = [
        significance.paired_difference(fixed, broken, count)
        for fixed, broken, _ in rng.multinomial(count, shares, size=1000)
    ]

    true = share_fixed - share_broken
    assert 930 <= sum(d.low <= true <= d.high for d in found) <= 980


def simulate(gain):
    """Returns the verdicts of 1,000 pairs of models that differ in 2 % of images."""
    rng = np.random.default_rng(0)
    both = 0.02
    shares = [(both + gain) / 2, (both - gain) / 2, 1 - both]
    counts = rng.multinomial(10_000, shares, size=1000)
    found = [significance.paired_difference(f, b, 10_000) for f, b, _ in counts]
    return [np.sign(d.value) * d.is_significant for d in found]


def test_equal_models_are_seldom_called_different():
    assert np.count_nonzero(simulate(gain=0.0)) <= 60


def test_a_gain_of_half_a_point_is_mostly_called_better():
    verdicts = simulate(gain=0.005)

    assert verdicts.count(1) >= 800
    assert verdicts.count(-1) == 0


def test_holms_correction_by_hand():
    adjusted = significance.adjust_p_values([0.04, 0.01, 0.5, 0.9, 0.02])

    assert adjusted == pytest.approx([0.12, 0.05, 1.0, 1.0, 0.08])


@pytest.mark.parametrize(("new", "p_value"), [([0.5, 0.5], 1.0), ([0.6, 0.6], 0.0)])
def test_without_noise_any_difference_of_means_is_one(new, p_value):
    found = significance.difference_of_means([0.5, 0.5], new)

    value = pytest.approx(new[0] - 0.5)
    assert found == (value, value, value, p_value)


def test_the_summary_over_seeds_by_the_formulas():
    values = [0.97, 0.98, 0.985, 0.975]

    found = significance.summarize(values)

    mean = sum(values) / 4
    sd = (sum((v - mean) ** 2 for v in values) / 3) ** 0.5
    half = stats.t.ppf(0.975, 3) * sd / 2
    assert found == pytest.approx((mean, sd, mean - half, mean + half))


def test_the_difference_of_means_by_welchs_formulas():
    old, new = [0.97, 0.98, 0.985, 0.975], [0.99, 0.985, 0.995]

    found = significance.difference_of_means(old, new)

    parts = [np.var(v, ddof=1) / len(v) for v in (old, new)]
    error = sum(parts) ** 0.5
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 3 + parts[1] ** 2 / 2)
    value = np.mean(new) - np.mean(old)
    half = stats.t.ppf(0.975, freedom) * error
    p_value = 2 * stats.t.sf(abs(value / error), freedom)
    assert found == pytest.approx((value, value - half, value + half, p_value))
