"""The border of images, which surrounds what they show."""

import numpy as np

SAMPLE_SIZE = 1000


def border_pixels(image: np.ndarray) -> np.ndarray:
    """Returns the outermost pixels of an image `[H, W, C]`, as `[N, C]`."""
    rows = np.concatenate([image[0], image[-1]])
    return np.concatenate([rows, *image[1:-1, [0, -1]]])


def border_range(images: np.ndarray, indices: np.ndarray) -> tuple[float, float]:
    """Returns how bright the border of most images is, 0 to 255.

    Args:
      images: `[N, H, W, C]` uint8; may be memory-mapped.
      indices: `[M]` integers, the images to use; if there are many, a sample.

    Returns:
      The 5th and the 95th percentile of the median brightness of an image's border.
    """
    size = min(len(indices), SAMPLE_SIZE)
    sample = indices[np.linspace(0, len(indices) - 1, size).astype(int)]
    medians = [np.median(border_pixels(images[index])) for index in sample]
    low, high = np.quantile(medians, [0.05, 0.95], method="nearest")
    return float(low), float(high)
