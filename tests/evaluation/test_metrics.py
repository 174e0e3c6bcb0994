"""Metrics, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from core_mlp.evaluation import metrics as scores


@pytest.fixture
def answers():
    """Labels, and probabilities that are right three times out of four."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 1000)
    logits = rng.normal(size=(1000, 5))
    logits[np.arange(1000), labels] += 2.0
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return labels, probabilities.astype(np.float32)


def test_the_interval_is_the_one_in_the_literature():
    # Newcombe, 1998: Two-sided confidence intervals for the single proportion, table I.
    for (correct, count), (low, high) in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        share = scores.proportion(correct, count)
        assert share.value == correct / count
        np.testing.assert_allclose([share.low, share.high], [low, high], atol=5e-5)


def test_the_interval_of_the_guides_accuracy():
    share = scores.proportion(9790, 10_000)

    assert (round(share.low, 3), round(share.high, 3)) == (0.976, 0.982)


def test_balanced_accuracy_agrees_with_scikit_learn(answers):
    labels, probabilities = answers
    predicted = probabilities.argmax(axis=1)
    # One class is rare, and one has no examples.
    kept = (labels != 3) & ((labels != 1) | (np.arange(1000) < 50))
    labels, predicted = labels[kept], predicted[kept]

    found = scores.balanced_accuracy(labels, predicted)

    expected = metrics.recall_score(
        labels, predicted, average="macro", labels=[0, 1, 2, 4]
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert abs(found - np.mean(labels == predicted)) > 1e-3


def test_mean_loss_agrees_with_scikit_learn(answers):
    labels, probabilities = answers

    loss = scores.mean_loss(labels, probabilities)

    expected = metrics.log_loss(labels, probabilities / probabilities.sum(1)[:, None])
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_mean_loss_stays_finite_where_float32_has_rounded_to_zero():
    loss = scores.mean_loss(np.array([1]), np.array([[1.0, 0.0]], np.float32))

    assert 87 < loss < 88


def test_calibration_by_hand():
    confidences = np.array([0.9, 0.92, 0.95, 0.3], np.float32)
    is_correct = np.array([True, True, False, True])

    bins = scores.calibration_bins(confidences, is_correct)

    assert [b.count for b in bins] == [1, 2, 1]
    np.testing.assert_allclose(
        [(b.confidence, b.accuracy) for b in bins],
        [(0.3, 1.0), (0.91, 1.0), (0.95, 0.0)],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        scores.calibration_error(bins), (0.7 + 2 * 0.09 + 0.95) / 4, rtol=1e-6
    )


def test_the_ends_of_the_confidence_scale_fall_into_bins():
    bins = scores.calibration_bins(np.array([0.0, 1.0]), np.array([False, True]))

    assert [tuple(b) for b in bins] == [(0.0, 0.0, 1), (1.0, 1.0, 1)]


def test_answers_that_are_as_sure_as_they_are_right_have_no_calibration_error():
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.2, 1.0, 100_000)
    is_correct = rng.uniform(size=100_000) < confidences

    bins = scores.calibration_bins(confidences, is_correct)

    assert sum(b.count for b in bins) == 100_000
    assert scores.calibration_error(bins) < 0.01
