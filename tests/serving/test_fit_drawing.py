"""Strokes of any size and strength fit into the network's frame."""

import numpy as np
import pytest
from PIL import Image

from core_mlp.serving.drawings import fit_drawing


@pytest.mark.parametrize("height_and_width", [(1, 12_000), (12_000, 1), (1, 3_000)])
@pytest.mark.parametrize("gray", [17, 255])
def test_the_thinnest_stroke_keeps_its_length_and_is_white(height_and_width, gray):
    pixels = np.pad(np.full(height_and_width, gray, np.uint8), 2)

    frame = np.asarray(fit_drawing(Image.fromarray(pixels), [28, 28], 20))

    rows, columns = np.nonzero(frame)
    assert frame.max() == 255
    assert max(np.ptp(rows), np.ptp(columns)) == 19
    assert min(np.ptp(rows), np.ptp(columns)) <= 1


def test_a_stroke_of_one_pixel_fills_the_square():
    pixels = np.pad(np.full((1, 1), 255, np.uint8), 5)

    frame = np.asarray(fit_drawing(Image.fromarray(pixels), [28, 28], 20))

    np.testing.assert_array_equal(frame, np.pad(np.full((20, 20), 255), 4))
