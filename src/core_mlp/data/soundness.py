"""Exact duplicates, rare classes, and other problems of a dataset."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from core_mlp.results.preprocess import DataProblem

IMAGE_SUMMARY = np.dtype(
    [("hash", np.uint64), ("label", np.int64), ("is_constant", bool)]
)


def summarize_images(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Summarizes each image in 17 bytes.

    Args:
      images: `[N, H, W, C]` uint8; may be memory-mapped.
      labels: `[N]` int64.

    Returns:
      `[N]` records: a hash of the pixels, the label, whether all pixels are the same.
    """
    summaries = np.empty(len(images), IMAGE_SUMMARY)
    height, width, channels = images.shape[1:]
    for index, image in enumerate(images):
        pixels = image.tobytes()
        digest = hashlib.blake2b(pixels, digest_size=8).digest()
        is_constant = pixels == pixels[:channels] * (height * width)
        summaries[index] = int.from_bytes(digest, "little"), labels[index], is_constant
    return summaries


def rare_classes(labels: np.ndarray, class_names: Sequence[str]) -> list[str]:
    """Returns the classes, not missing, that are rarer than a tenth of the commonest.

    >>> rare_classes(np.array([0] * 30 + [1] * 2 + [2] * 3), list("abcd"))
    ['b']

    Args:
      labels: `[N]` int64.
      class_names: Name of each class.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    is_rare = (counts > 0) & (10 * counts < counts.max())
    return [class_names[index] for index in np.flatnonzero(is_rare)]


def find_problems(
    splits: Mapping[str, np.ndarray], class_names: Sequence[str]
) -> list[DataProblem]:
    """Counts exact duplicates, constant images and missing classes.

    Args:
      splits: The images' summaries, by split.
      class_names: Name of each class.
    """
    pairs = np.unique(np.concatenate(list(splits.values()))[["hash", "label"]])
    hashes, num_labels = np.unique(pairs["hash"], return_counts=True)
    conflicts = hashes[num_labels > 1]
    problems = []
    for split, summaries in splits.items():
        hashes, labels = summaries["hash"], summaries["label"]
        counts = {"repeated": len(hashes) - len(np.unique(hashes))}
        for other in splits:
            if other != split:
                is_shared = np.isin(hashes, splits[other]["hash"])
                counts[f"also in {other}"] = is_shared.sum()
        counts["with two labels"] = np.isin(hashes, conflicts).sum()
        counts["of one color"] = summaries["is_constant"].sum()
        counts["missing classes"] = len(class_names) - len(np.unique(labels))
        problems += [
            DataProblem(split, problem, int(count)) for problem, count in counts.items()
        ]
    return problems
