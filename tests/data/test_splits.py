"""Held-out splits share no image."""

import numpy as np
import pytest

from core_mlp.data.splits import hold_out
from core_mlp.pipeline.errors import InputError


def test_the_first_examples_are_held_out_split_by_split():
    splits = hold_out(np.arange(10), {"test": 2, "validation": 3})

    assert {split: part.tolist() for split, part in splits.items()} == {
        "test": [0, 1],
        "validation": [2, 3, 4],
        "train": [5, 6, 7, 8, 9],
    }


def test_equal_images_are_never_in_two_splits():
    keys = np.random.default_rng(0).integers(0, 80, 300).astype(np.uint64)

    splits = hold_out(keys, {"test": 30, "validation": 40})

    assert sorted(np.concatenate(list(splits.values()))) == list(range(300))
    kinds = [set(keys[part]) for part in splits.values()]
    assert sum(map(len, kinds)) == len(set().union(*kinds))
    assert len(splits["test"]) > 30


@pytest.mark.parametrize("keys", [np.arange(5), np.zeros(99)])
def test_something_must_be_left_to_train_on(keys):
    with pytest.raises(InputError) as error:
        hold_out(keys, {"test": 2, "validation": 3})

    assert str(error.value) == (
        "params.yaml: test_size + validation_size = 5: none of "
        f"{len(keys)} images left for training"
    )
