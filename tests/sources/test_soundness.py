"""Held-out splits share no image, and what is wrong with a dataset is counted."""

import numpy as np
import pytest

from core_mlp.pipeline.stage import InputError
from core_mlp.sources.soundness import examine, find_problems, hold_out


def solid(*values):
    """Returns images whose first pixel differs from the others, by their value."""
    images = np.zeros([len(values), 2, 2, 3], np.uint8)
    images[:, 0, 0, 0] = values
    return images


def test_equal_images_have_equal_hashes_and_others_do_not():
    images = np.random.default_rng(0).integers(0, 256, [1000, 3, 2, 1], np.uint8)

    facts = examine(np.concatenate([images, images]), np.arange(2000))

    np.testing.assert_array_equal(facts["hash"][:1000], facts["hash"][1000:])
    assert len(np.unique(facts["hash"])) == 1000
    np.testing.assert_array_equal(facts["label"], np.arange(2000))


def test_an_image_of_one_color_is_constant():
    images = solid(0, 1, 2)
    images[2] = (7, 8, 9)

    assert examine(images, np.zeros(3))["is_constant"].tolist() == [True, False, True]


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
        f"{len(keys)} left for training"
    )


def test_problems_are_counted_by_hand():
    splits = {
        "train": examine(solid(1, 1, 2, 3, 4), np.array([0, 0, 0, 1, 1])),
        # 2 has another label than in train; 0 is constant.
        "validation": examine(solid(2, 0), np.array([1, 0])),
        "test": examine(solid(1, 3, 3, 9), np.array([0, 1, 1, 1])),
    }

    rows = find_problems(splits, ["a", "b", "c"])

    found = {(split, problem): count for split, problem, count in rows if count}
    assert found == {
        ("train", "repeated"): 1,
        ("train", "also in validation"): 1,
        ("train", "also in test"): 3,
        ("train", "with two labels"): 1,
        ("train", "missing classes"): 1,
        ("validation", "also in train"): 1,
        ("validation", "with two labels"): 1,
        ("validation", "of one color"): 1,
        ("validation", "missing classes"): 1,
        ("test", "repeated"): 1,
        ("test", "also in train"): 3,
        ("test", "missing classes"): 1,
    }
    assert len(rows) == 18
    assert all(type(count) is int for *_, count in rows)
