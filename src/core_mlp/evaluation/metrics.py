"""Classification metrics; NumPy and SciPy only."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from core_mlp.results.evaluate import CalibrationBin, ClassAccuracy, Confusion

CONFIDENCE_LEVEL = 0.95
CALIBRATION_BINS = 15


class Proportion(NamedTuple):
    """A proportion in [0, 1] with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def summarize(
    labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray
) -> dict[str, float]:
    """Computes the metrics of a model on a split.

    Args:
      labels: `[N]` int64.
      predicted: `[N]` int64.
      probabilities: `[N, num_classes]` float32, rows sum to 1.
    """
    is_correct = predicted == labels
    accuracy = proportion(np.count_nonzero(is_correct), len(labels))
    bins = calibration_bins(probabilities.max(axis=1), is_correct)
    return {
        "test_accuracy": accuracy.value,
        "test_accuracy_low": accuracy.low,
        "test_accuracy_high": accuracy.high,
        "test_balanced_accuracy": balanced_accuracy(labels, predicted),
        "test_loss": mean_loss(labels, probabilities),
        "test_calibration_error": calibration_error(bins),
    }


def proportion(num_correct: int, count: int) -> Proportion:
    """Computes a proportion and its Wilson score interval.

    Unlike the normal approximation, the interval stays within [0, 1] and is accurate
    near the ends.

    >>> proportion(8, 10).value
    0.8

    References:
      Wilson, 1927: Probable inference, the law of succession, and statistical
      inference.
    """
    low, high = binomtest(int(num_correct), int(count)).proportion_ci(
        CONFIDENCE_LEVEL, method="wilson"
    )
    return Proportion(num_correct / count, float(low), float(high))


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Computes the mean accuracy of the classes, of which each counts the same.

    Classes without examples do not count. Always answering the commonest of K classes
    gives 1 / K, however common it is.

    >>> balanced_accuracy(np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0]))
    0.5

    Args:
      labels: `[N]` int64.
      predicted: `[N]` int64.

    References:
      Brodersen et al., 2010: The balanced accuracy and its posterior distribution.
    """
    counts = np.bincount(labels)
    num_correct = np.bincount(labels[predicted == labels], minlength=len(counts))
    occurs = counts > 0
    return float(np.mean(num_correct[occurs] / counts[occurs]))


def mean_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Computes the mean of `-log(probability of the label)`, in nats.

    A probability that float32 rounded to zero counts as the smallest normal number.
    """
    tiny = np.finfo(np.float32).tiny
    label_probabilities = probabilities[np.arange(len(labels)), labels]
    clipped = np.maximum(label_probabilities.astype(np.float64), tiny)
    return float(-np.log(clipped).mean())


def class_accuracies(
    counts: np.ndarray, class_names: Sequence[str]
) -> list[ClassAccuracy]:
    """Computes the accuracy of each class that has examples, worst first.

    Args:
      counts: `[num_classes, num_classes]` int64; a row is an actual class.
      class_names: Name of each class.
    """
    rows = []
    for index in np.flatnonzero(counts.sum(axis=1)):
        count = int(counts[index].sum())
        accuracy = proportion(counts[index, index], count)
        row = ClassAccuracy(
            label=class_names[index],
            accuracy=accuracy.value,
            error_rate=1 - accuracy.value,
            count=count,
            low=accuracy.low,
            high=accuracy.high,
        )
        rows.append(row)
    return sorted(rows, key=lambda row: row.accuracy)


def confused_pairs(counts: np.ndarray, class_names: Sequence[str]) -> list[Confusion]:
    """Lists actual class, predicted class and number of images.

    The pairs of a class with itself are first, in the order of the labels, followed by
    the confusions that occur. With hundreds of classes, most do not.

    >>> [tuple(row) for row in confused_pairs(np.array([[5, 1], [0, 0]]), ["a", "b"])]
    [('a', 'a', 5), ('b', 'b', 0), ('a', 'b', 1)]

    Args:
      counts: `[num_classes, num_classes]` int64; a row is an actual class.
      class_names: Name of each class.
    """
    own = [(index, index) for index in range(len(class_names))]
    others = [(a, p) for a, p in np.argwhere(counts).tolist() if a != p]
    return [
        Confusion(
            actual=class_names[actual],
            predicted=class_names[predicted],
            count=int(counts[actual, predicted]),
        )
        for actual, predicted in [*own, *others]
    ]


def calibration_bins(
    confidences: np.ndarray, is_correct: np.ndarray
) -> list[CalibrationBin]:
    """Groups `[N]` examples by confidence, in bins of equal width; omits empty bins."""
    edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
    # As in the paper, a bin includes its upper edge.
    bins = np.clip(np.searchsorted(edges, confidences) - 1, 0, CALIBRATION_BINS - 1)
    return [
        CalibrationBin(
            confidence=float(confidences[bins == index].mean(dtype=np.float64)),
            accuracy=float(is_correct[bins == index].mean()),
            count=int(np.count_nonzero(bins == index)),
        )
        for index in np.unique(bins)
    ]


def calibration_error(bins: list[CalibrationBin]) -> float:
    """Computes the mean distance between confidence and accuracy over all examples.

    References:
      Guo et al., 2017: On calibration of modern neural networks, equation 3.
    """
    total = sum(b.count for b in bins)
    return sum(b.count * abs(b.accuracy - b.confidence) for b in bins) / total
