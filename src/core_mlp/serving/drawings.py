"""Fits a drawing into a frame, like the drawings that a model was trained on."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from core_mlp.data.borders import border_pixels
from core_mlp.sources.image_files import resize_image

MID_GRAY = 127.5
# Strokes fainter than this count as paper: in gray levels, and as a fraction of the
# strongest stroke.
MIN_CONTRAST = 16
MIN_INK = 0.25
MAX_STROKES = 9_000  # Largest side of the strokes, in pixels, that is scaled at once.


def fit_drawing(
    image: Image.Image, size: Sequence[int], side: int
) -> Image.Image | None:
    """Fits a gray drawing into a frame `[height, width]` as MNIST's digits were.

    The strokes are scaled to fit into a square of `side` pixels, then centered by mass.
    Contrast is stretched.

    Returns:
      The frame, or None if there are no strokes.

    References:
      LeCun et al., 1998: Gradient-based learning applied to document recognition.
    """
    background = border_brightness(image)
    strokes = _find_strokes(image, background)
    if strokes is None:
        return None
    square = _fit_square(strokes, side)
    shift = np.round(np.divide(size, 2) - _center_of_mass(square)).astype(int)
    top, left = np.clip(shift, 0, np.subtract(size, side))
    frame = np.zeros(size, np.uint8)
    frame[top : top + side, left : left + side] = square * (255 / square.max())
    return Image.fromarray(frame if background < MID_GRAY else 255 - frame)


def border_brightness(image: Image.Image) -> float:
    """Returns the median brightness of an image's border, 0 to 255."""
    return float(np.median(border_pixels(np.atleast_3d(image))))


def _find_strokes(image: Image.Image, background: float) -> Image.Image | None:
    """Returns the strokes, white on black and cut out; None if there are none."""
    ink = np.abs(np.asarray(image, np.float32) - background)
    ink[ink < max(MIN_CONTRAST, MIN_INK * ink.max())] = 0
    strokes = Image.fromarray(ink.astype(np.uint8))
    bounds = strokes.getbbox()
    if bounds is None:
        return None
    strokes = strokes.crop(bounds)
    length = max(strokes.size)
    if length > MAX_STROKES:
        scale = MAX_STROKES / length
        smaller = [max(1, round(pixels * scale)) for pixels in strokes.size]
        strokes = strokes.resize(smaller, Image.Resampling.BILINEAR)
    return strokes


def _fit_square(strokes: Image.Image, side: int) -> np.ndarray:
    """Scales strokes to fit into a square, `[side, side]` uint8."""
    width, height = strokes.size
    length = max(width, height)
    left = (width - length) // 2
    top = (height - length) // 2
    # Outside the strokes, the crop is black: no ink.
    strokes = strokes.crop((left, top, left + length, top + length))
    square = np.asarray(resize_image(strokes, [side, side]))
    if square.any():
        return square
    # The strokes are so thin that they were rounded to nothing.
    exact = strokes.convert("F").resize([side, side], Image.Resampling.BILINEAR)
    return np.asarray(exact)


def _center_of_mass(square: np.ndarray) -> list[float]:
    """Returns the mean row and column, weighted by ink."""
    # SciPy has this, but takes half a second to import.
    places = np.arange(len(square))
    return [np.average(places, weights=square.sum(axis=axis)) for axis in (1, 0)]
