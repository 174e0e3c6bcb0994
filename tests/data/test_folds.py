"""Folds for cross-validation, and their TFRecords."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from core_mlp.data.folds import assign_folds, hold_out_fold
from core_mlp.data.tfrecords import read_split, write_split
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import SplitInfo

NUM_FOLDS = 3


@pytest.fixture
def splits(tmp_path):
    """The folders of two splits: 20 images for training and 10 for validation."""
    images = np.random.default_rng(0).integers(0, 256, [30, 4, 3, 1], np.uint8)
    labels = np.arange(30) % 2
    info = SplitInfo(
        dataset="made-up",
        version="1",
        image_shape=(4, 3, 1),
        class_names=("a", "b"),
        num_examples=30,
    )
    train, validation = tmp_path / "train", tmp_path / "validation"
    write_split(
        train,
        info.model_copy(update={"border": (1.0, 2.0)}),
        images,
        labels,
        indices=np.arange(20),
    )
    write_split(validation, info, images, labels, indices=np.arange(20, 30))
    return train, validation


def read(folder):
    return read_split(folder, SplitInfo.read_split(folder))


def records_of(*folders):
    paths = [str(path) for folder in folders for path in folder.glob("*.tfrecord")]
    return sorted(tf.data.TFRecordDataset(paths).as_numpy_iterator())


def test_each_fold_has_the_same_share_of_each_class():
    labels = np.random.default_rng(0).permutation([0] * 30 + [1] * 10)

    folds = assign_folds(np.arange(40), labels, 5)

    for fold in range(5):
        assert np.bincount(labels[folds == fold]).tolist() == [6, 2]
    np.testing.assert_array_equal(folds, assign_folds(np.arange(40), labels, 5))


def test_equal_images_are_in_the_same_fold_whatever_their_labels():
    keys = np.random.default_rng(0).permutation(np.arange(40) % 20)

    folds = assign_folds(keys, np.arange(40) % 2, 5)

    for key in range(20):
        assert len(set(folds[keys == key])) == 1
    assert 5 <= np.bincount(folds).min() <= np.bincount(folds).max() <= 11


def test_more_folds_than_images_of_a_class_are_refused():
    """So are those that copies of an image would fill."""
    keys = np.array([1, 1, 2, 3, 4])

    assign_folds(keys, np.array([0, 0, 0, 0, 0]), 4)
    with pytest.raises(InputError, match=r"^--folds 5: the largest class has only 4 "):
        assign_folds(keys, np.array([0, 0, 0, 0, 0]), 5)


def test_every_image_is_held_out_once_and_the_others_are_trained_on(splits, tmp_path):
    parts = [read(folder) for folder in splits]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    border = SplitInfo.read_split(splits[0]).border
    before = records_of(*splits)
    num_held_out = np.zeros(30, int)

    for number in range(1, NUM_FOLDS + 1):
        train, validation = (
            shutil.copytree(folder, tmp_path / str(number) / folder.name)
            for folder in splits
        )
        indices = hold_out_fold(train, validation, number=number, num_folds=NUM_FOLDS)

        num_held_out[indices] += 1
        rest = np.setdiff1d(np.arange(30), indices)
        for folder, expected in ((train, rest), (validation, indices)):
            found_images, found_labels = read(folder)
            np.testing.assert_array_equal(found_images, images[expected])
            np.testing.assert_array_equal(found_labels, labels[expected])
        assert SplitInfo.read_split(train).border == border
        # Whatever else an example has is kept.
        assert records_of(train, validation) == before
    assert num_held_out.tolist() == [1] * 30


def test_a_corrupt_split_is_refused_and_stays_as_it_is(splits):
    train, validation = splits
    [shard] = validation.glob("*.tfrecord")
    shard.write_bytes(shard.read_bytes()[:-1])
    before = records_of(train)

    with pytest.raises(InputError, match=r"/validation-00000.*: corrupt"):
        hold_out_fold(train, validation, number=1, num_folds=NUM_FOLDS)

    assert records_of(train) == before
