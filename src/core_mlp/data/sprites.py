"""Many images in one PNG, without text: in a grid, row by row."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from core_mlp.pipeline.files import atomic_output

# Images of mistakes in a row, and how many there are at most.
MISTAKE_COLUMNS = 20
MAX_MISTAKES = 500
# Pixels of a sprite; its PNG is hardly larger. Larger images are scaled down.
MAX_BYTES = 900_000


def write_sprite(
    path: Path, images: np.ndarray, *, columns: int, min_side: int = 1
) -> None:
    """Writes images as one PNG, so many in a row.

    Args:
      path: The file.
      images: `[N, H, W, C]` uint8.
      columns: Images in a row.
      min_side: Smaller images are enlarged to sides of about so many pixels.
    """
    images = _fit(images)
    scale = max(1, min_side // max(images.shape[1:3]))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = images.shape
    rows = max(1, math.ceil(count / columns))
    sprite = np.zeros([rows * columns, height, width, channels], np.uint8)
    sprite[:count] = images
    sprite = sprite.reshape(rows, columns, height, width, channels)
    sprite = sprite.swapaxes(1, 2).reshape(rows * height, -1, channels)
    with atomic_output(path) as partial:
        _to_picture(sprite).save(partial, format="png", optimize=True)


def _fit(images: np.ndarray) -> np.ndarray:
    """Scales `[N, H, W, C]` uint8 images down so that a sprite of them is small."""
    scale = math.sqrt(MAX_BYTES / max(1, images.nbytes))
    if scale >= 1.0:
        return images
    height, width = (max(1, int(scale * size)) for size in images.shape[1:3])
    pictures = [_to_picture(image) for image in images]
    scaled = [np.asarray(picture.resize((width, height))) for picture in pictures]
    return np.stack(scaled).reshape(len(images), height, width, -1)


def _to_picture(image: np.ndarray) -> Image.Image:
    """Converts an image, `[H, W, C]` uint8; one channel is gray, three are RGB."""
    return Image.fromarray(image.squeeze(axis=2) if image.shape[2] == 1 else image)
