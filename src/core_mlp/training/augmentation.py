"""Random distortions of training images, drawn inside the compiled epoch."""

import math
from functools import partial

import numpy as np
import tensorflow as tf

from core_mlp.pipeline.params import AugmentationParams

# On a CPU, XLA runs it ten times as fast as the default, Philox. It needs XLA.
RANDOM_ALGORITHM = "threefry"
NUM_DRAWS = 8


def augment(
    images: tf.Tensor,
    seed: tf.Tensor,
    *,
    rotation: float = 0.0,
    scale: float = 0.0,
    shear: float = 0.0,
    shift: float = 0.0,
    elastic: float = 0.0,
    smoothness: float = 4.0,
    horizontal_flip: bool = False,
) -> tf.Tensor:
    """Distorts each image of a batch at random; must be compiled by XLA.

    An image is rotated, scaled, sheared and shifted about its center, displaced by an
    elastic field (blurred white noise), and flipped in half of the cases. Pixels are
    interpolated bilinearly; outside the image, the nearest pixel is used.

    Args:
      images: `[B, H, W, C]` float32; the shape is static.
      seed: `[2]` int32; equal seeds give equal draws.
      rotation: Largest angle, in degrees; drawn uniformly, as are the next three.
      scale: Largest relative change of height and of width.
      shear: Largest horizontal displacement per pixel of vertical distance.
      shift: Largest displacement in each direction, in pixels.
      elastic: Standard deviation of the elastic displacement, in pixels.
      smoothness: Standard deviation of the Gaussian blur of the field, in pixels.
      horizontal_flip: Whether to flip left and right in half of the cases.

    Returns:
      `[B, H, W, C]` float32.

    References:
      Simard et al., 2003: Best practices for convolutional neural networks applied to
      visual document analysis, section 2.
    """
    batch_size, height, width, _ = images.shape
    seeds = tf.random.split(seed)
    draws = tf.random.stateless_uniform(
        [7, batch_size, 1, 1], seeds[0], -1.0, 1.0, alg=RANDOM_ALGORITHM
    )
    center_y, center_x = (height - 1) / 2, (width - 1) / 2
    y = tf.range(height, dtype=tf.float32)[:, tf.newaxis] - center_y
    x = tf.range(width, dtype=tf.float32)[tf.newaxis, :] - center_x
    # Where each pixel of the result comes from: the inverse of the distortion.
    angle = math.radians(rotation) * draws[0]
    cos, sin = tf.cos(angle), tf.sin(angle)
    from_y = (1.0 + scale * draws[1]) * (cos * y + sin * x) + shift * draws[2]
    from_x = (1.0 + scale * draws[3]) * (cos * x - sin * y + shear * draws[4] * y)
    from_x += shift * draws[5]
    if horizontal_flip:
        from_x *= tf.sign(draws[6])
    if elastic:
        field = elastic_field(batch_size, height, width, smoothness, seeds[1])
        from_y += elastic * field[0]
        from_x += elastic * field[1]
    return interpolate(images, from_y + center_y, from_x + center_x)


def elastic_field(
    batch_size: int, height: int, width: int, smoothness: float, seed: tf.Tensor
) -> tf.Tensor:
    """Draws displacements of mean 0 and variance 1, smooth within an image.

    Returns:
      `[2, B, H, W]` float32: vertical and horizontal displacement of each pixel.
    """

    def blur(size: int) -> tf.Tensor:
        distance = np.subtract.outer(np.arange(size), np.arange(size)) / smoothness
        weights = np.exp(-0.5 * distance**2)
        # Rows of norm 1 keep the variance, even at the border.
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        return tf.constant(weights, tf.float32)

    bound = 3.0**0.5  # Uniform noise of variance 1.
    noise = tf.random.stateless_uniform(
        [2 * batch_size * width, height], seed, -bound, bound, alg=RANDOM_ALGORITHM
    )
    # Many rows and few columns: with many columns, the order of summation, and so the
    # last bits, would depend on the number of cores.
    blurred = tf.matmul(noise, blur(height), transpose_b=True)
    blurred = tf.transpose(tf.reshape(blurred, [-1, width, height]), [0, 2, 1])
    blurred = tf.matmul(tf.reshape(blurred, [-1, width]), blur(width), transpose_b=True)
    return tf.reshape(blurred, [2, batch_size, height, width])


def interpolate(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    """Samples images at fractional positions, bilinearly.

    Args:
      images: `[B, H, W, C]` float32; the shape is static.
      y: `[B, H, W]` float32, rows, in pixels; clipped to the image.
      x: `[B, H, W]` float32, columns, likewise.

    Returns:
      `[B, H, W, C]` float32.
    """
    batch_size, height, width, channels = images.shape
    y = tf.clip_by_value(y, 0.0, height - 1.0)
    x = tf.clip_by_value(x, 0.0, width - 1.0)
    top, left = tf.floor(y), tf.floor(x)
    weight_y, weight_x = (y - top)[..., tf.newaxis], (x - left)[..., tf.newaxis]
    top, left = tf.cast(top, tf.int32), tf.cast(left, tf.int32)
    # One row down and one column to the right, unless it is the last.
    down = tf.cast(top < height - 1, tf.int32) * width
    right = tf.cast(left < width - 1, tf.int32)
    corner = top * width + left
    flat = tf.reshape(images, [batch_size, -1, channels])
    # With a batched gather, XLA looks up only once where an image's pixels start.
    pixels = partial(tf.gather, flat, batch_dims=1)
    rows = []
    for index in (corner, corner + down):
        pair = pixels(index), pixels(index + right)
        rows.append((1.0 - weight_x) * pair[0] + weight_x * pair[1])
    return (1.0 - weight_y) * rows[0] + weight_y * rows[1]


def draw_rows(images: np.ndarray, augmentation: AugmentationParams) -> np.ndarray:
    """Puts eight distortions beside each image, to look at; none if they are off.

    Args:
      images: `[N, H, W, C]` uint8.
      augmentation: Strengths of the distortions.

    Returns:
      `[N, 9, H, W, C]` uint8, or `[N, 1, H, W, C]` without distortions.
    """
    rows = images[:, np.newaxis]
    if not augmentation.is_on:
        return rows
    repeated = tf.cast(np.repeat(images, NUM_DRAWS, axis=0), tf.float32)
    compiled = tf.function(augment, jit_compile=True)
    draws = compiled(repeated, tf.constant([0, 0]), **augmentation.model_dump())
    draws = np.round(draws).astype(np.uint8)
    draws = draws.reshape(len(images), NUM_DRAWS, *images.shape[1:])
    return np.concatenate([rows, draws], axis=1)
