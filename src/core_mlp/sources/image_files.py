"""Reads and resizes image files, the same way for training and for prediction."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from core_mlp.pipeline.stage import InputError, first_line

GRAY_MODES = {"1", "L", "LA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}


def read_image(file: Path | str | BinaryIO, channels: int | None = None) -> Image.Image:
    """Reads an image file of any format that Pillow reads.

    The first frame of an animation counts; the camera's orientation (EXIF) is applied;
    transparent parts become white; 16 bits become 8.

    Args:
      file: The file, or its path.
      channels: 1 for gray, 3 for RGB, None for what the file has.

    Returns:
      An image of mode L or RGB.

    Raises:
      InputError: If the file is not an image, is truncated, or has more pixels than
        `PIL.Image.MAX_IMAGE_PIXELS`, which is checked before decoding.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file)
        with image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return convert_image(image, channels)
    # Pillow's decoders raise whatever a corrupt file makes them raise.
    except Exception as error:
        where = f"{str(file)!r}: " if isinstance(file, Path | str) else ""
        problem = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{where}not a readable image: {problem}") from error


def convert_image(image: Image.Image, channels: int | None = None) -> Image.Image:
    """Converts an image of any mode to L or RGB, as `read_image` does."""
    is_gray = image.mode in GRAY_MODES
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = {None: "L" if is_gray else "RGB", 1: "L", 3: "RGB"}[channels]
    return image if image.mode == mode else image.convert(mode)


def resize_image(image: Image.Image, size: Sequence[int]) -> Image.Image:
    """Scales an image to fit into `[height, width]`, antialiased.

    The aspect ratio is kept: what is left of the frame is filled with the median color
    of the image's border.
    """
    height, width = size
    if image.size == (width, height):
        return image
    color = tuple(np.median(border(np.atleast_3d(image)), axis=0).astype(int).tolist())
    return ImageOps.pad(image, (width, height), Image.Resampling.BILINEAR, color=color)


def border(image: np.ndarray) -> np.ndarray:
    """Returns the outermost pixels of an image `[H, W, C]`, as `[N, C]`."""
    rows = np.concatenate([image[0], image[-1]])
    return np.concatenate([rows, *image[1:-1, [0, -1]]])
