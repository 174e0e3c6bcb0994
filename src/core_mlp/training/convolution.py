"""Convolution and maximum pooling, with gradients that XLA computes fast on a CPU.

On a CPU, XLA has a fast kernel for the plain convolution only. With XLA's own gradient,
training takes tens of times as long (see JAX in benchmarks/README.md).
"""

from collections.abc import Callable

import tensorflow as tf

# Up to so many channels, a product with the patches of the images is faster than that
# kernel.
FEW_CHANNELS = 4
# From the gradient of the outputs to the gradients of the inputs.
Gradient = Callable[[tf.Tensor], tuple[tf.Tensor, ...] | tf.Tensor]


@tf.custom_gradient
def convolve(images: tf.Tensor, filters: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """Convolves images with 3 x 3 filters; outside of an image are zeros.

    As usual for networks, the filters are not flipped.

    Args:
      images: `[B, H, W, C]` float32.
      filters: `[3, 3, C, F]` float32.

    Returns:
      `[B, H, W, F]` float32, and the gradient function.
    """
    _, height, width, channels = images.shape
    num_filters = filters.shape[3]
    has_few_channels = channels <= FEW_CHANNELS
    if has_few_channels:
        matrix = tf.reshape(patches(images), [-1, 9 * channels])
        outputs = matrix @ tf.reshape(filters, [9 * channels, num_filters])
        outputs = tf.reshape(outputs, [-1, height, width, num_filters])
    else:
        outputs = tf.nn.conv2d(images, filters, 1, "SAME")

    def gradient(upstream):
        flipped = tf.transpose(tf.reverse(filters, [0, 1]), [0, 1, 3, 2])
        image_gradient = tf.nn.conv2d(upstream, flipped, 1, "SAME")
        if has_few_channels:
            upstream = tf.reshape(upstream, [-1, num_filters])
            filter_gradient = tf.matmul(matrix, upstream, transpose_a=True)
            return image_gradient, tf.reshape(filter_gradient, filters.shape)
        # A convolution, too: the images of a batch take the place of channels, the
        # channels that of images, and the gradient of the outputs is the filter.
        filter_gradient = tf.nn.conv2d(
            tf.transpose(images, [3, 1, 2, 0]),
            tf.transpose(upstream, [1, 2, 0, 3]),
            strides=1,
            padding=[[0, 0], [1, 1], [1, 1], [0, 0]],
        )
        return image_gradient, tf.transpose(filter_gradient, [1, 2, 0, 3])

    return outputs, gradient


def patches(images: tf.Tensor) -> tf.Tensor:
    """Returns the 3 x 3 pixels around each pixel; outside of an image are zeros.

    The product of patches and filters, as matrices, is their convolution.

    Args:
      images: `[B, H, W, C]`.

    Returns:
      `[B, H, W, 9 * C]`, in the order of filters of shape `[3, 3, C, F]`.
    """
    height, width = images.shape[1:3]
    padded = tf.pad(images, [[0, 0], [1, 1], [1, 1], [0, 0]])
    shifted = [
        padded[:, row : row + height, column : column + width]
        for row in range(3)
        for column in range(3)
    ]
    return tf.concat(shifted, axis=3)


@tf.custom_gradient
def max_pool(images: tf.Tensor) -> tuple[tf.Tensor, Gradient]:
    """Returns the maximum of each 2 x 2 window, which is smaller at an odd end.

    Args:
      images: `[B, H, W, C]` float32.

    Returns:
      `[B, ceil(H / 2), ceil(W / 2), C]` float32, and the gradient function. Pixels that
      share a maximum share its gradient.
    """
    height, width, channels = images.shape[1:]
    pooled = tf.nn.max_pool2d(images, 2, 2, "SAME")
    pooled_height, pooled_width = pooled.shape[1:3]
    # Sizes of the windows' rows and columns, as axes of their own.
    windows = [-1, pooled_height, 2, pooled_width, 2, channels]

    def gradient(upstream):
        padding = [[0, 0], [0, height % 2], [0, width % 2], [0, 0]]
        padded = tf.pad(images, padding, constant_values=images.dtype.min)
        is_maximum = tf.reshape(padded, windows) == pooled[:, :, None, :, None]
        corners = [padded[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
        count = sum(tf.cast(corner == pooled, tf.float32) for corner in corners)
        shares = (upstream / count)[:, :, None, :, None]
        spread = tf.where(is_maximum, shares, 0.0)
        spread = tf.reshape(spread, [-1, 2 * pooled_height, 2 * pooled_width, channels])
        return spread[:, :height, :width]

    return pooled, gradient
