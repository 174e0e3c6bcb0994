"""Differences over seeds, against SciPy's own tests and by simulation."""

import json
import math

import numpy as np
import pytest
from helpers import ROOT
from scipy import stats

from core_mlp.reporting.significance import (
    LOOKS,
    Difference,
    adjust_p_values,
    difference_of_means,
    summarize,
)

OLD, NEW = [0.97, 0.98, 0.985, 0.975], [0.99, 0.985, 0.995, 0.97]
SD = 0.0017
NUM_PAIRS = 2000
# Two standard errors of a share of 5 % in so many pairs.
ALLOWANCE = 0.01


def draw(mean=0.98, seed=0):
    return np.random.default_rng(seed).normal(mean, SD, (NUM_PAIRS, max(LOOKS)))


def share_at_any_look(old, new, verdicts, margin):
    """Returns how often one looks at one of the verdicts."""
    found = [
        any(
            difference_of_means(a[:n], b[:n]).verdict(margin) in verdicts for n in LOOKS
        )
        for a, b in zip(old, new, strict=True)
    ]
    return np.mean(found)


@pytest.mark.parametrize("number", LOOKS)
def test_the_difference_of_means_agrees_with_scipys_welch_test(number):
    rng = np.random.default_rng(number)
    old, new = rng.normal(0.97, 0.01, number), rng.normal(0.98, 0.02, number)

    found = difference_of_means(old, new)

    expected = stats.ttest_ind(new, old, equal_var=False)
    interval = expected.confidence_interval(1 - LOOKS[number])
    assert found.level == LOOKS[number]
    assert found.value == pytest.approx(np.mean(new) - np.mean(old))
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.df == pytest.approx(expected.df)
    assert found.interval() == pytest.approx(tuple(interval))
    less = stats.ttest_ind(new + 0.01, old, equal_var=False, alternative="less")
    assert found.p_below(-0.01) == pytest.approx(less.pvalue)


def test_a_number_of_seeds_between_two_looks_has_the_level_of_the_lower():
    assert difference_of_means(OLD, NEW).level == LOOKS[3]
    assert difference_of_means(OLD * 6, NEW * 6).level == LOOKS[20]


@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (1, 20), (3, 20), (20, 19)])
def test_too_few_seeds_or_unequal_numbers_conclude_nothing(sizes):
    old, new = (np.linspace(m, m + SD, n) for m, n in zip((0, 1), sizes, strict=True))

    for found in (difference_of_means(old, new), difference_of_means(new, old)):
        assert abs(found.value) > 0.9
        assert not found.is_known
        assert found.interval() == (-math.inf, math.inf)
        assert found.verdict(0.002) == "not decided"
        assert found.p_value == 1.0
        assert found.detectable == math.inf


def test_one_seed_against_several_takes_over_their_spread():
    found = difference_of_means([0.99], OLD)

    assert found.sd == pytest.approx(np.std(OLD, ddof=1))
    assert found.error == pytest.approx(found.sd * (1 + 1 / 4) ** 0.5)
    assert found.seeds_to_decide(0.0) == 8


@pytest.mark.parametrize("number", [3, 6, 7, 20])
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
    old, new = [0.5, 0.50001, 0.50002], [0.6, 0.60001, 0.60002]

    assert difference_of_means(old, new).verdict(0.002) == "better"


def test_without_noise_nothing_is_claimed():
    still = difference_of_means([0.5] * 3, [0.6] * 3)
    assert still.p_value == 1.0
    assert still.interval() == (-math.inf, math.inf)
    assert still.verdict(0.002) == "not decided"
    assert still.seeds_to_decide(0.002) is None
    assert summarize([0.5] * 3) == (0.5, 0.0, 0.5, 0.5)


def test_the_same_settings_are_called_different_in_5_of_100_however_often_one_looks():
    wrong = share_at_any_look(draw(), draw(seed=1), ("better", "worse"), margin=0.0)

    assert 0.045 - ALLOWANCE <= wrong <= 0.055 + ALLOWANCE


def test_a_loss_of_the_margin_is_called_equivalent_in_at_most_5_of_100():
    margin = 1.5 * SD

    old, new = draw()[:1000], draw(0.98 - margin, seed=1)[:1000]

    wrong = share_at_any_look(old, new, ("equivalent",), margin)

    assert 0.005 <= wrong <= 0.025 + ALLOWANCE


@pytest.mark.parametrize(("size", "look"), [(10, 5), (5, 5), (3, 8), (1.5, 20)])
def test_a_large_difference_takes_few_seeds(size, look):
    old, new = draw()[:200, :look], draw(0.98 + size * SD, seed=1)[:200, :look]

    found = [
        difference_of_means(a, b).verdict(0.002) for a, b in zip(old, new, strict=True)
    ]

    assert found.count("better") >= 190


def test_an_interval_of_one_sides_mean_misses_in_5_of_100_however_often_one_looks():
    missed = []
    for values in draw():
        summaries = [summarize(values[:look]) for look in LOOKS]
        missed.append(any(not s.low <= 0.98 <= s.high for s in summaries))

    assert 0.045 - ALLOWANCE <= np.mean(missed) <= 0.055 + ALLOWANCE


def test_the_levels_are_those_whose_errors_were_measured():
    measured = json.loads((ROOT / "benchmarks/noise/decide.json").read_text())

    assert measured["levels"] == {str(look): level for look, level in LOOKS.items()}


@pytest.mark.parametrize("df", [19, 38])
def test_the_difference_that_20_seeds_detect_has_80_percent_power(df):
    gain = Difference(0.0, error=0.0005, df=df, sd=SD, level=LOOKS[20]).detectable

    critical = stats.t.ppf(1 - LOOKS[20] / 2, df)
    power = stats.nct.sf(critical, df, gain / 0.0005)
    assert power == pytest.approx(0.8, abs=0.01)


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
    difference = Difference(value, error=0.0008, df=38, sd=0.0025, level=0.0286)

    assert difference.verdict(0.002) == verdict


@pytest.mark.parametrize(
    ("value", "look"),
    [(0.05, 3), (-0.008, 5), (0.003, 8), (0.002, 12), (0.0015, 20), (0.0, 12)],
)
def test_the_look_decides_and_the_one_before_does_not(value, look):
    first_impression = Difference(value, error=0.0, df=0.0, sd=SD, level=0.0)

    assert first_impression.seeds_to_decide(0.002) == look
    for number, level in LOOKS.items():
        error, df = SD * (2 / number) ** 0.5, 2 * (number - 1)
        is_decided = Difference(value, error, df, SD, level).verdict(0.002)
        assert (is_decided != "not decided") == (number >= look)


def test_what_20_seeds_do_not_decide_is_not_promised():
    assert Difference(0.001, 0.001, 8, SD, 0.0076).seeds_to_decide(0.002) is None


def test_holms_correction_by_hand():
    adjusted = adjust_p_values([0.04, 0.01, 0.5, 0.9, 0.02])

    assert adjusted == pytest.approx([0.12, 0.05, 1.0, 1.0, 0.08])


@pytest.mark.parametrize(("number", "look"), [(3, 3), (4, 3), (12, 12), (40, 20)])
def test_the_summary_over_seeds_has_the_level_of_its_look(number, look):
    values = np.random.default_rng(0).normal(0.98, SD, number)

    found = summarize(values)

    error = stats.sem(values)
    low, high = stats.t.interval(1 - LOOKS[look], number - 1, np.mean(values), error)
    assert found == pytest.approx((np.mean(values), np.std(values, ddof=1), low, high))


def test_two_seeds_have_a_spread_but_no_interval():
    assert summarize([0.98, 0.99]) == (
        pytest.approx(0.985),
        pytest.approx(0.01 / 2**0.5),
        None,
        None,
    )
