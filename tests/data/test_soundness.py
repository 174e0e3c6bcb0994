"""Problems of a dataset are counted."""

import numpy as np

from core_mlp.data.soundness import find_problems, summarize_images


def solid(*values):
    """Returns images whose first pixel differs from the others, by their value."""
    images = np.zeros([len(values), 2, 2, 3], np.uint8)
    images[:, 0, 0, 0] = values
    return images


def test_equal_images_have_equal_hashes_and_others_do_not():
    images = np.random.default_rng(0).integers(0, 256, [1000, 3, 2, 1], np.uint8)

    summaries = summarize_images(np.concatenate([images, images]), np.arange(2000))

    np.testing.assert_array_equal(summaries["hash"][:1000], summaries["hash"][1000:])
    assert len(np.unique(summaries["hash"])) == 1000
    np.testing.assert_array_equal(summaries["label"], np.arange(2000))


def test_an_image_of_one_color_is_constant():
    images = solid(0, 1, 2)
    images[2] = (7, 8, 9)

    assert summarize_images(images, np.zeros(3))["is_constant"].tolist() == [
        True,
        False,
        True,
    ]


def test_problems_are_counted_by_hand():
    splits = {
        "train": summarize_images(solid(1, 1, 2, 3, 4), np.array([0, 0, 0, 1, 1])),
        # 2 has another label than in train; 0 is constant.
        "validation": summarize_images(solid(2, 0), np.array([1, 0])),
        "test": summarize_images(solid(1, 3, 3, 9), np.array([0, 1, 1, 1])),
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
