"""Folds for cross-validation: every example is held out in exactly one of them."""

from itertools import compress
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.model_selection import StratifiedKFold

from core_mlp.data import soundness, tfrecords
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.metadata import SplitInfo


def assign_folds(keys: np.ndarray, labels: np.ndarray, num_folds: int) -> np.ndarray:
    """Divides examples into folds, with about the same share of each class in each.

    The same arguments give the same folds.

    Args:
      keys: `[N]`, equal for equal images, which are all in the same fold.
      labels: `[N]` int64.
      num_folds: How many folds, 2 or more.

    Returns:
      `[N]` integers, the fold of each example, from 0.

    Raises:
      InputError: If even the commonest class has fewer images than there are folds.
    """
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    largest = np.bincount(labels[first]).max()
    if largest < num_folds:
        raise InputError(
            f"--folds {num_folds}: the largest class has only {largest} different "
            "images"
        )
    splitter = StratifiedKFold(num_folds, shuffle=True, random_state=0)
    folds = np.empty(len(first), np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(first, labels[first])):
        folds[held_out] = fold
    return folds[group]


def hold_out_fold(
    train: Path, validation: Path, *, number: int, num_folds: int
) -> np.ndarray:
    """Replaces two splits: validation becomes a fold of both, train the other folds.

    Args:
      train: A split from `tfrecords.write_split`.
      validation: Another one of the same dataset.
      number: Which fold to hold out, from 1.
      num_folds: How many folds there are.

    Returns:
      `[M]` integers, sorted: the examples that are held out, as indices into train and
      validation as they were, one after the other.

    Raises:
      InputError: If a file is corrupt, or there are too many folds.
    """
    infos = {folder: SplitInfo.read_split(folder) for folder in (train, validation)}
    paths = [
        str(folder / name)
        for folder, info in infos.items()
        for name in sorted(info.sha256)
    ]
    records = tf.data.TFRecordDataset(paths)
    image_shape = infos[train].image_shape
    batches = records.batch(tfrecords.PARSE_BATCH_SIZE).map(
        lambda serialized: tfrecords.parse_examples(serialized, image_shape)
    )
    summaries = np.concatenate(
        [soundness.summarize_images(*batch) for batch in batches.as_numpy_iterator()]
    )
    folds = assign_folds(summaries["hash"], summaries["label"], num_folds)
    is_held_out = folds == number - 1
    with (
        atomic_output(train, tf.errors.OpError) as partial_train,
        atomic_output(validation, tf.errors.OpError) as partial_validation,
    ):
        for partial, info, is_chosen in (
            (partial_train, infos[train], ~is_held_out),
            (partial_validation, infos[validation], is_held_out),
        ):
            tfrecords.write_records(
                partial,
                info,
                compress(records.as_numpy_iterator(), is_chosen),
                num_examples=int(np.count_nonzero(is_chosen)),
            )
    return np.flatnonzero(is_held_out)
