"""The network: its layers, and the multilayer perceptron, as `tf.Module`."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import tensorflow as tf

from core_mlp.training.convolution import convolve, max_pool, patches


def xavier_uniform(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Draws the weights of a layer from the Xavier (Glorot) uniform distribution.

    Each element is drawn from `U(-limit, limit)` with
    `limit = sqrt(6 / (input_size + output_size))`, which keeps the scale of activations
    and gradients from layer to layer.

    >>> xavier_uniform([2, 4], seed=[0, 0]).shape
    TensorShape([2, 4])

    Args:
      shape: `[input_size, output_size]` of a dense layer. Or, for filters, `[height,
        width, channels, num_filters]`: then each output sees height * width * channels
        inputs, and each input is seen by height * width * num_filters outputs.
      seed: Two integers; equal seeds give equal weights.

    References:
      Glorot & Bengio, 2010: Understanding the difficulty of training deep feedforward
      neural networks, equation 16.
    """
    *window, input_channels, output_channels = shape
    input_size = math.prod(window) * input_channels
    output_size = math.prod(window) * output_channels
    limit = (6.0 / (input_size + output_size)) ** 0.5
    return tf.random.stateless_uniform(shape, seed, minval=-limit, maxval=limit)


@tf.custom_gradient
def bfloat16_affine(
    inputs: tf.Tensor, weights: tf.Tensor, bias: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]]:
    """Computes `inputs @ weights + bias` with bfloat16 factors and float32 sums.

    Must be compiled by XLA; TensorFlow's own kernels do not support this product.

    Args:
      inputs: `[batch_size, input_size]` float32.
      weights: `[input_size, output_size]` float32.
      bias: `[output_size]` float32.

    Returns:
      `[batch_size, output_size]` float32, and the gradient function.
    """
    inputs, weights = tf.cast(inputs, tf.bfloat16), tf.cast(weights, tf.bfloat16)

    def product(a, b, *, transpose_b=False):
        return tf.raw_ops.BatchMatMulV3(x=a, y=b, adj_y=transpose_b, Tout=tf.float32)

    def gradient(upstream):
        upstream = tf.cast(upstream, tf.bfloat16)
        # The gradient of [weights; bias] is [inputs, 1]^T @ upstream. The padding also
        # keeps XLA from folding the transpose into the product, for which a CPU would
        # have to convert the factors to float32.
        transposed = tf.pad(tf.transpose(inputs), [[0, 1], [0, 0]], constant_values=1)
        parameter_gradient = product(transposed, upstream)
        input_gradient = product(upstream, weights, transpose_b=True)
        return input_gradient, parameter_gradient[:-1], parameter_gradient[-1]

    return product(inputs, weights) + bias, gradient


class Convolution(tf.Module):
    """A 3 x 3 convolution, bias, 2 x 2 maximum pooling and ReLU.

    The factors of the products may be bfloat16; everything else is float32.

    Attributes:
      filters: `[3, 3, input_channels, num_filters]` float32 variable, Xavier uniform.
      bias: `[num_filters]` float32 variable, zeros.

    References:
      LeCun et al., 1998: Gradient-based learning applied to document recognition,
      section II. Simonyan & Zisserman, 2015: Very deep convolutional networks for
      large-scale image recognition, section 2, for the sizes of filters and windows.
    """

    def __init__(
        self,
        input_channels: int,
        num_filters: int,
        *,
        compute_dtype: tf.DType = tf.float32,
        seed: Sequence[int],
        name: str | None = None,
    ) -> None:
        """Creates the variables.

        Args:
          input_channels: Channels of the input.
          num_filters: Channels of the output.
          compute_dtype: As of `Dense`.
          seed: As of `Dense`.
          name: Name of the module.
        """
        super().__init__(name=name)
        self.compute_dtype = compute_dtype
        with self.name_scope:
            self.filters = tf.Variable(
                xavier_uniform([3, 3, input_channels, num_filters], seed),
                name="filters",
            )
            self.bias = tf.Variable(tf.zeros([num_filters]), name="bias")

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Maps `[B, H, W, C]` to `[B, ceil(H / 2), ceil(W / 2), num_filters]`."""
        # A custom gradient takes tensors, not variables.
        filters = tf.convert_to_tensor(self.filters)
        bias = tf.convert_to_tensor(self.bias)
        if self.compute_dtype == tf.bfloat16:
            pooled = max_pool(bfloat16_convolution(images, filters, bias))
        else:
            # The result is the same before the pooling, but takes more additions.
            pooled = tf.nn.bias_add(max_pool(convolve(images, filters)), bias)
        return tf.nn.relu(pooled)


def bfloat16_convolution(
    images: tf.Tensor, filters: tf.Tensor, bias: tf.Tensor
) -> tf.Tensor:
    """Computes `convolve(images, filters) + bias` by `bfloat16_affine`, of patches.

    Args:
      images: `[B, H, W, C]` float32.
      filters: `[3, 3, C, F]` float32.
      bias: `[F]` float32.

    Returns:
      `[B, H, W, F]` float32.
    """
    _, height, width, channels = images.shape
    num_filters = filters.shape[3]
    matrix = tf.reshape(patches(images), [-1, 9 * channels])
    weights = tf.reshape(filters, [9 * channels, num_filters])
    outputs = bfloat16_affine(matrix, weights, bias)
    return tf.reshape(outputs, [-1, height, width, num_filters])


class Dense(tf.Module):
    """A fully connected layer: `activation(inputs @ weights + bias)`.

    The factors of the product may be bfloat16; everything else is float32.

    Attributes:
      weights: `[input_size, output_size]` float32 variable, Xavier uniform.
      bias: `[output_size]` float32 variable, zeros.
    """

    def __init__(
        self,
        input_size: int,
        output_size: int,
        *,
        activation: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
        compute_dtype: tf.DType = tf.float32,
        seed: Sequence[int],
        name: str | None = None,
    ) -> None:
        """Creates the variables.

        Args:
          input_size: Features per input.
          output_size: Units of the layer.
          activation: Applied to the output.
          compute_dtype: Type of the product's factors, float32 or bfloat16; a bfloat16
            layer must be compiled by XLA.
          seed: Two integers for the initial weights, different for each layer.
          name: Name of the module.
        """
        super().__init__(name=name)
        self.activation = activation
        self.compute_dtype = compute_dtype
        with self.name_scope:
            self.weights = tf.Variable(
                xavier_uniform([input_size, output_size], seed), name="weights"
            )
            self.bias = tf.Variable(tf.zeros([output_size]), name="bias")

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps `[batch_size, input_size]` to `[batch_size, output_size]`.

        An input may have a shape, with `input_size` elements: it is flattened.
        """
        if inputs.shape.rank > 2:
            inputs = tf.reshape(inputs, [-1, math.prod(inputs.shape[1:])])
        if self.compute_dtype == tf.bfloat16:
            # A custom gradient takes tensors, not variables.
            weights = tf.convert_to_tensor(self.weights)
            bias = tf.convert_to_tensor(self.bias)
            outputs = bfloat16_affine(inputs, weights, bias)
        else:
            outputs = tf.nn.bias_add(tf.matmul(inputs, self.weights), self.bias)
        return self.activation(outputs)


class MLP(tf.Module):
    """A multilayer perceptron: dense layers with ReLU between them, logits out.

    There may be convolutions before it.

    Attributes:
      layers: The `Convolution` and the `Dense` layers, first to last.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        output_sizes: Sequence[int],
        *,
        conv_filters: Sequence[int] = (),
        compute_dtype: tf.DType = tf.float32,
        seed: int,
    ) -> None:
        """Creates the layers.

        Args:
          image_shape: Height, width and channels of an image.
          output_sizes: Units of each dense layer; the last is the number of classes.
          conv_filters: Filters of each convolution.
          compute_dtype: Type of the products' factors, float32 or bfloat16.
          seed: Seed for all initial weights; each layer draws from its own stream.
        """
        super().__init__()
        height, width, channels = image_shape
        for num_filters in conv_filters:
            height, width = math.ceil(height / 2), math.ceil(width / 2)
            channels = num_filters
        sizes = [height * width * channels, *output_sizes]
        last = len(output_sizes) - 1
        first_seed = len(conv_filters)
        with self.name_scope:
            convolutions = [
                Convolution(
                    input_channels,
                    num_filters,
                    compute_dtype=compute_dtype,
                    seed=[seed, index],
                    name=f"convolution_{index}",
                )
                for index, (input_channels, num_filters) in enumerate(
                    pairwise([image_shape[2], *conv_filters])
                )
            ]
            dense = [
                Dense(
                    input_size,
                    output_size,
                    activation=tf.identity if index == last else tf.nn.relu,
                    compute_dtype=compute_dtype,
                    seed=[seed, first_seed + index],
                    name=f"dense_{index}",
                )
                for index, (input_size, output_size) in enumerate(pairwise(sizes))
            ]
            self.layers = [*convolutions, *dense]

    @property
    def num_parameters(self) -> int:
        """Number of trainable weights and biases."""
        return sum(v.shape.num_elements() for v in self.trainable_variables)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Maps `[B, H, W, C]` images to `[B, num_classes]` logits."""
        outputs = images
        for layer in self.layers:
            outputs = layer(outputs)
        return outputs
