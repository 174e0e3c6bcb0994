"""Many images in one PNG."""

import numpy as np
import pytest
from matplotlib.image import imread

from core_mlp.data import sprites


def test_the_images_are_in_rows_of_twenty(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, [23, 4, 3, 3], np.uint8)

    sprites.write_sprite(tmp_path / "color.png", images, columns=20)
    sprites.write_sprite(tmp_path / "gray.png", images[..., :1], columns=20)
    sprites.write_sprite(tmp_path / "empty.png", images[:0], columns=20)

    color = np.round(255 * imread(tmp_path / "color.png"))
    assert color.shape == (8, 60, 3)
    np.testing.assert_array_equal(color[4:, 6:9], images[22])
    gray = np.round(255 * imread(tmp_path / "gray.png"))
    np.testing.assert_array_equal(gray[:4, 57:], images[19, ..., 0])
    assert imread(tmp_path / "empty.png").shape[:2] == (4, 60)


def test_small_images_are_enlarged(tmp_path):
    images = np.array([[[[0], [9]]], [[[7], [5]]]], np.uint8)  # Two of 1 x 2 pixels.

    sprites.write_sprite(tmp_path / "a.png", images, columns=1, min_side=5)

    pixels = np.round(255 * imread(tmp_path / "a.png"))
    np.testing.assert_array_equal(
        pixels, [[0, 0, 9, 9], [0, 0, 9, 9], [7, 7, 5, 5], [7, 7, 5, 5]]
    )


def test_photographs_are_small_files(tmp_path):
    """They are in Git, and the report cuts out as many cells as there are images."""
    images = np.random.default_rng(0).integers(0, 256, [81, 224, 224, 3], np.uint8)

    sprites.write_sprite(tmp_path / "a.png", images, columns=20)

    assert (tmp_path / "a.png").stat().st_size < 1_000_000
    height, width = imread(tmp_path / "a.png").shape[:2]
    assert height / 5 == pytest.approx(width / 20)


@pytest.mark.parametrize("shape", [(1, 400_000, 1), (400_000, 1, 1), (1, 400_000, 3)])
def test_images_of_one_row_or_column_are_scaled_down(tmp_path, shape):
    images = np.full([4, *shape], 100, np.uint8)

    sprites.write_sprite(tmp_path / "a.png", images, columns=1)

    pixels = np.round(255 * imread(tmp_path / "a.png"))
    assert (pixels.ndim == 3) == (shape[2] == 3)
    assert set(np.unique(pixels)) == {100}
