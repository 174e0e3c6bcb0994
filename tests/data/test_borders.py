"""How bright the border of images is."""

import numpy as np
import pytest

from core_mlp.data.borders import border_pixels, border_range


@pytest.mark.parametrize(("shape", "number"), [((4, 5, 1), 14), ((1, 3, 3), 6)])
def test_the_border_is_the_outermost_pixels(shape, number):
    image = np.zeros(shape, np.uint8)
    image[0] = image[-1] = 7
    image[:, 0] = image[:, -1] = 7

    assert border_pixels(image).tolist() == [[7] * shape[2]] * number


def test_the_range_is_that_of_most_images_that_count():
    images = np.zeros([100, 6, 6, 1], np.uint8)
    images[:, 1:-1, 1:-1] = 255  # Not the border.
    images[:50] = 80
    images[[60, 70]] = 255  # Outliers.
    images[90:] = 200  # Not among the indices.

    assert border_range(images, np.arange(90)) == (0.0, 80.0)


def test_a_sample_of_many_images_is_read():
    images = np.repeat(np.arange(250, dtype=np.uint8), 20).reshape(5000, 1, 1, 1)

    low, high = border_range(images, np.arange(5000))

    assert low == pytest.approx(0.05 * 249, abs=1)
    assert high == pytest.approx(0.95 * 249, abs=1)
