"""The network: dense layers and the multilayer perceptron, as `tf.Module`."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import tensorflow as tf


def xavier_uniform(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Draws a weight matrix from the Xavier (Glorot) uniform distribution.

    Each element is drawn from `U(-limit, limit)` with
    `limit = sqrt(6 / (input_size + output_size))`, which keeps the scale of activations
    and gradients from layer to layer.

    >>> xavier_uniform([2, 4], seed=[0, 0]).shape
    TensorShape([2, 4])

    Args:
      shape: `[input_size, output_size]`.
      seed: Two integers; equal seeds give equal matrices.

    References:
      Glorot & Bengio, 2010: Understanding the difficulty of training deep feedforward
      neural networks, equation 16.
    """
    input_size, output_size = shape
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
        """Maps `[batch_size, input_size]` to `[batch_size, output_size]`."""
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

    Attributes:
      layers: The `Dense` layers, first to last.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        output_sizes: Sequence[int],
        *,
        compute_dtype: tf.DType = tf.float32,
        seed: int,
    ) -> None:
        """Creates the layers.

        Args:
          image_shape: Height, width and channels of an image.
          output_sizes: Units of each layer; the last is the number of classes.
          compute_dtype: Type of the products' factors, float32 or bfloat16.
          seed: Seed for all initial weights; each layer draws from its own stream.
        """
        super().__init__()
        sizes = [math.prod(image_shape), *output_sizes]
        last = len(output_sizes) - 1
        with self.name_scope:
            self.layers = [
                Dense(
                    input_size,
                    output_size,
                    activation=tf.identity if index == last else tf.nn.relu,
                    compute_dtype=compute_dtype,
                    seed=[seed, index],
                    name=f"dense_{index}",
                )
                for index, (input_size, output_size) in enumerate(pairwise(sizes))
            ]

    @property
    def num_parameters(self) -> int:
        """Number of trainable weights and biases."""
        return sum(v.shape.num_elements() for v in self.trainable_variables)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Maps `[B, H, W, C]` images to `[B, num_classes]` logits."""
        outputs = tf.reshape(images, [-1, math.prod(images.shape[1:])])
        for layer in self.layers:
            outputs = layer(outputs)
        return outputs
