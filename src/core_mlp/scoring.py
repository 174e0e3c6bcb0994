"""What the answers of a classifier are worth; NumPy and SciPy only."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

CONFIDENCE_LEVEL = 0.95
CALIBRATION_BINS = 15


class Proportion(NamedTuple):
    """A share of right answers with its 95 % interval.

    Attributes:
      value: Share, 0 to 1.
      low: Lower end of the Wilson interval.
      high: Upper end.
    """

    value: float
    low: float
    high: float


class CalibrationBin(NamedTuple):
    """The examples whose confidence is within one bin.

    Attributes:
      confidence: Their mean confidence, 0 to 1.
      accuracy: Share of right answers, 0 to 1.
      count: Their number.
    """

    confidence: float
    accuracy: float
    count: int


def proportion(num_correct: int, count: int) -> Proportion:
    """Computes a share and its Wilson score interval.

    Unlike the normal approximation it stays within 0 and 1 and holds near them.

    >>> proportion(8, 10).value
    0.8

    Args:
      num_correct: 0 to `count`.
      count: At least 1.

    References:
      Wilson, 1927: Probable inference, the law of succession, and statistical
      inference.
    """
    low, high = binomtest(int(num_correct), int(count)).proportion_ci(
        CONFIDENCE_LEVEL, method="wilson"
    )
    return Proportion(num_correct / count, float(low), float(high))


def mean_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Computes the mean cross-entropy from probabilities.

    Args:
      labels: `[N]` int64.
      probabilities: `[N, num_classes]` float32, rows sum to 1.

    Returns:
      Mean of `-log(probability of the label)`, in nats. A probability that float32
      has rounded to zero counts as its smallest normal number, 1.2e-38.
    """
    tiny = np.finfo(np.float32).tiny
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_label, tiny)).mean())


def confusion_counts(
    labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts each pair of true and predicted class.

    >>> confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])

    Args:
      labels: `[N]` int64.
      predicted: `[N]` int64.
      num_classes: Of both.

    Returns:
      `[num_classes, num_classes]` int64; a row is a true class, a column a predicted
      one.
    """
    pairs = labels * num_classes + predicted
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def calibration_bins(
    confidences: np.ndarray, is_correct: np.ndarray
) -> list[CalibrationBin]:
    """Groups examples by confidence, in bins of equal width; leaves out empty ones.

    Args:
      confidences: `[N]`, the largest probability of each example, 0 to 1.
      is_correct: `[N]` bool.
    """
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    # As in the paper, a bin includes its upper edge.
    bins = np.clip(np.searchsorted(edges, confidences) - 1, 0, CALIBRATION_BINS - 1)
    return [
        CalibrationBin(
            float(confidences[bins == index].mean(dtype=np.float64)),
            float(is_correct[bins == index].mean()),
            int(np.count_nonzero(bins == index)),
        )
        for index in np.unique(bins)
    ]


def calibration_error(bins: list[CalibrationBin]) -> float:
    """Computes the expected calibration error.

    Args:
      bins: From `calibration_bins`.

    Returns:
      Mean distance of confidence and accuracy over all examples, 0 to 1.

    References:
      Guo et al., 2017: On calibration of modern neural networks, equation 3.
    """
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / total
