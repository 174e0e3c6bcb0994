"""Preprocessing shared by training and serving."""

import tensorflow as tf


def normalize_images(images: tf.Tensor) -> tf.Tensor:
    """Scales images to [0, 1].

    Args:
      images: `[B, H, W, C]` uint8, 0 to 255.

    Returns:
      `[B, H, W, C]` float32, 0 to 1.

    Raises:
      TypeError: If the images are not uint8; float images may be scaled already.
    """
    if images.dtype != tf.uint8:
        raise TypeError(f"Expected uint8 images, got {images.dtype.name}.")
    # Not a division: in a graph it becomes this product, which rounds differently.
    return tf.cast(images, tf.float32) * (1.0 / 255.0)
