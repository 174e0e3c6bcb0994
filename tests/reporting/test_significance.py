"""Differences over seeds, against SciPy's own tests and by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from core_mlp.reporting.significance import (
    Difference,
    adjust_p_values,
    difference_of_means,
    summarize,
)

OLD, NEW = [0.97, 0.98, 0.985, 0.975], [0.99, 0.985, 0.995]
SD = 0.0017


def draw(rng, number, mean=0.98):
    return rng.normal(mean, SD, number)


def test_the_difference_of_means_agrees_with_scipys_welch_test():
    found = difference_of_means(OLD, NEW)

    expected = stats.ttest_ind(NEW, OLD, equal_var=False)
    assert found.value == pytest.approx(np.mean(NEW) - np.mean(OLD))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(expected.df)
    assert found.interval() == pytest.approx(tuple(expected.confidence_interval()))
    shifted = np.array(NEW) + 0.01
    less = stats.ttest_ind(shifted, OLD, equal_var=False, alternative="less")
    assert found.p_below(-0.01) == pytest.approx(less.pvalue)


@pytest.mark.parametrize("number", [2, 6, 7, 20])
def test_rounding_noise_is_no_spread(number):
    """The mean of seven equal numbers is not that number, by 1e-17."""
    found = difference_of_means(
        [round(35 / 36, 6)] * number, [round(34 / 36, 6)] * number
    )

    assert found.error == 0
    assert found.verdict(0.002) == "not decided"
    last_digit = [0.5, 0.500001] * number
    assert difference_of_means(last_digit, last_digit).error == 0
    assert summarize([round(35 / 36, 6)] * number).sd == 0


def test_a_small_spread_is_a_spread():
    assert difference_of_means([0.5, 0.50001], [0.6, 0.60001]).error > 0


def test_one_seed_against_many_agrees_with_the_interval_of_a_prediction():
    found = difference_of_means(OLD, [0.99])

    half = stats.t.ppf(0.975, 3) * np.std(OLD, ddof=1) * (1 + 1 / 4) ** 0.5
    value = 0.99 - np.mean(OLD)
    assert found.interval() == pytest.approx((value - half, value + half))
    backwards = difference_of_means([0.99], OLD)
    assert backwards.interval() == pytest.approx((-value - half, -value + half))


def test_without_noise_nothing_is_claimed():
    still = difference_of_means([0.5, 0.5], [0.6, 0.6])
    assert still.p_value == 1.0
    assert still.interval() == (-math.inf, math.inf)
    assert still.verdict(0.002) == "not decided"
    assert still.seeds_to_decide(0.002) is None
    assert summarize([0.5, 0.5]) == (0.5, 0.0, 0.5, 0.5)


@pytest.mark.parametrize("sizes", [(20, 20), (10, 10), (5, 5), (20, 1)])
def test_the_same_settings_are_called_different_in_5_of_100(sizes):
    rng = np.random.default_rng(0)
    found = [difference_of_means(*(draw(rng, n) for n in sizes)) for _ in range(2000)]

    verdicts = [difference.verdict(0.002) for difference in found]
    wrong = verdicts.count("better") + verdicts.count("worse")
    assert 0.035 <= wrong / 2000 <= 0.065
    holds = [low <= 0 <= high for low, high in (d.interval() for d in found)]
    assert np.mean(holds) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("df", [4, 8, 19, 38])
def test_the_detectable_difference_has_80_percent_power(df):
    gain = Difference(0.0, error=0.0005, df=df, sd=SD).detectable

    critical = stats.t.ppf(0.975, df)
    power = stats.nct.sf(critical, df, gain / 0.0005)
    assert power == pytest.approx(0.8, abs=0.01)


def test_a_loss_of_the_margin_is_called_equivalent_in_at_most_5_of_100():
    rng = np.random.default_rng(0)
    verdicts = [
        difference_of_means(draw(rng, 20), draw(rng, 20) - 0.002).verdict(0.002)
        for _ in range(2000)
    ]

    assert verdicts.count("equivalent") <= 100
    assert verdicts.count("worse") >= 1800


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (0.003, "better"),
        (-0.003, "worse"),
        (0.0, "equivalent"),
        (0.0015, "not decided"),
    ],
)
def test_each_verdict(value, verdict):
    difference = Difference(value, error=0.0008, df=38, sd=0.0025)

    assert difference.verdict(0.002) == verdict


@pytest.mark.parametrize("value", [0.0, 0.001, 0.0015, 0.003])
def test_the_number_of_seeds_decides_and_one_less_does_not(value):
    number = Difference(value, 0.002, 8, SD).seeds_to_decide(0.002)

    for n, is_decided in ((number, True), (number - 1, False)):
        known = Difference(value, SD * (2 / n) ** 0.5, n - 1, SD)
        assert (known.verdict(0.002) != "not decided") == is_decided


def test_more_than_a_thousand_seeds_are_not_counted():
    assert Difference(0.00199, 0.01, 8, 0.05).seeds_to_decide(0.002) is None


def test_holms_correction_by_hand():
    adjusted = adjust_p_values([0.04, 0.01, 0.5, 0.9, 0.02])

    assert adjusted == pytest.approx([0.12, 0.05, 1.0, 1.0, 0.08])


def test_the_summary_over_seeds_agrees_with_scipy():
    found = summarize(OLD)

    low, high = stats.t.interval(0.95, 3, np.mean(OLD), stats.sem(OLD))
    assert found == pytest.approx((np.mean(OLD), np.std(OLD, ddof=1), low, high))
