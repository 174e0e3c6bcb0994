"""Held-out splits, exact duplicates, and other problems of a dataset."""

import hashlib
from collections.abc import Sequence

import numpy as np

from core_mlp.pipeline.params import PATH as PARAMS
from core_mlp.pipeline.stage import InputError

COLUMNS = "split", "problem", "count"
FACTS = np.dtype([("hash", np.uint64), ("label", np.int64), ("is_constant", bool)])


def examine(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Summarizes each image in 17 bytes.

    Args:
      images: `[N, H, W, C]` uint8; may be memory-mapped.
      labels: `[N]` int64.

    Returns:
      `[N]` records: a hash of the pixels, the label, whether all pixels are the same.
    """
    facts = np.empty(len(images), FACTS)
    height, width, channels = images.shape[1:]
    for index, image in enumerate(images):
        pixels = image.tobytes()
        digest = hashlib.blake2b(pixels, digest_size=8).digest()
        is_constant = pixels == pixels[:channels] * (height * width)
        facts[index] = int.from_bytes(digest, "little"), labels[index], is_constant
    return facts


def hold_out(keys: np.ndarray, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Divides examples into splits that have no key in common.

    Args:
      keys: `[N]`, equal for equal images.
      sizes: For each split in turn, how many of the first examples that are left it
        takes; it also takes all that equal one of them.

    Returns:
      Sorted indices of the examples of each split; the rest is `train`.

    Raises:
      InputError: If no example is left for `train`.
    """
    splits, rest = {}, np.arange(len(keys))
    for split, size in sizes.items():
        is_held_out = np.isin(keys[rest], keys[rest[:size]])
        splits[split], rest = rest[is_held_out], rest[~is_held_out]
    if not len(rest):
        total = f"{' + '.join(f'{s}_size' for s in sizes)} = {sum(sizes.values())}"
        raise InputError(f"{PARAMS}: {total}: none of {len(keys):,} left for training")
    return {"train": rest, **splits}


def find_problems(
    splits: dict[str, np.ndarray], class_names: Sequence[str]
) -> list[tuple[str, str, int]]:
    """Counts exact duplicates, constant images and missing classes.

    `splits` has the result of `examine` by split.

    Returns:
      Split, problem, and number of images (or classes) with it, which may be 0.
    """
    pairs = np.unique(np.concatenate(list(splits.values()))[["hash", "label"]])
    hashes, num_labels = np.unique(pairs["hash"], return_counts=True)
    conflicts = hashes[num_labels > 1]
    rows = []
    for split in (names := ("train", "validation", "test")):
        hashes, labels = splits[split]["hash"], splits[split]["label"]
        counts = {"repeated": len(hashes) - len(np.unique(hashes))}
        for other in names:
            if other != split:
                is_shared = np.isin(hashes, splits[other]["hash"])
                counts[f"also in {other}"] = is_shared.sum()
        counts["with two labels"] = np.isin(hashes, conflicts).sum()
        counts["of one color"] = splits[split]["is_constant"].sum()
        counts["missing classes"] = len(class_names) - len(np.unique(labels))
        rows += [(split, problem, int(count)) for problem, count in counts.items()]
    return rows
