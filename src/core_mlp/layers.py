"""The layers of the network, as `tf.Module`."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import tensorflow as tf


def xavier_uniform(shape: Sequence[int], seed: Sequence[int]) -> tf.Tensor:
    """Draws a weight matrix by the Xavier (Glorot) uniform scheme.

    Each element is drawn from `U(-limit, limit)` with
    `limit = sqrt(6 / (input_size + output_size))`, so that neither activations nor
    gradients grow or shrink from layer to layer.

    >>> xavier_uniform([2, 4], seed=[0, 0]).shape
    TensorShape([2, 4])

    Args:
      shape: `[input_size, output_size]`.
      seed: Two integers; the same seed gives the same matrix.

    Returns:
      `[input_size, output_size]` float32.

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
    """Computes `inputs @ weights + bias`: factors in bfloat16, sums in float32.

    To be compiled by XLA; TensorFlow's executor has no such product.

    Args:
      inputs: `[batch_size, input_size]` float32.
      weights: `[input_size, output_size]` float32.
      bias: `[output_size]` float32.

    Returns:
      `[batch_size, output_size]` float32, and the function of its gradients.
    """
    inputs, weights = tf.cast(inputs, tf.bfloat16), tf.cast(weights, tf.bfloat16)

    def product(a, b, *, transpose_b=False):
        return tf.raw_ops.BatchMatMulV3(x=a, y=b, adj_y=transpose_b, Tout=tf.float32)

    def gradient(upstream):
        upstream = tf.cast(upstream, tf.bfloat16)
        # The gradient of [weights; bias] is [inputs, 1]^T @ upstream. The padding also
        # keeps XLA from folding the transpose into the product: on a CPU it would have
        # to widen the factors of such a product to float32.
        transposed = tf.pad(tf.transpose(inputs), [[0, 1], [0, 0]], constant_values=1)
        of_parameters = product(transposed, upstream)
        of_inputs = product(upstream, weights, transpose_b=True)
        return of_inputs, of_parameters[:-1], of_parameters[-1]

    return product(inputs, weights) + bias, gradient


class Dense(tf.Module):
    """A fully connected layer: `activation(inputs @ weights + bias)`.

    The factors of the product may be in bfloat16, all else is in float32.

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
        product_dtype: tf.DType = tf.float32,
        seed: Sequence[int],
        name: str | None = None,
    ) -> None:
        """Creates the variables.

        Args:
          input_size: Features of an input.
          output_size: Units of the layer.
          activation: Applied elementwise to the output.
          product_dtype: Of the factors of the product, float32 or bfloat16; a layer in
            bfloat16 is to be compiled by XLA.
          seed: Two integers, of the weights; each layer needs its own.
          name: Of the module.
        """
        super().__init__(name=name)
        self.activation = activation
        self.product_dtype = product_dtype
        with self.name_scope:
            self.weights = tf.Variable(
                xavier_uniform([input_size, output_size], seed), name="weights"
            )
            self.bias = tf.Variable(tf.zeros([output_size]), name="bias")

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps `[batch_size, input_size]` to `[batch_size, output_size]`."""
        if self.product_dtype == tf.bfloat16:
            parameters = map(tf.convert_to_tensor, (self.weights, self.bias))
            outputs = bfloat16_affine(inputs, *parameters)
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
        input_size: int,
        output_sizes: Sequence[int],
        *,
        product_dtype: tf.DType = tf.float32,
        seed: int,
        name: str | None = None,
    ) -> None:
        """Creates the layers, each sized by the one before it.

        Args:
          input_size: Features of an input.
          output_sizes: Units of each layer; the last is the number of classes.
          product_dtype: Of the factors of each layer's product, float32 or bfloat16.
          seed: Of all weights; each layer draws a stream of its own from it.
          name: Of the module.
        """
        super().__init__(name=name)
        sizes = [input_size, *output_sizes]
        last = len(output_sizes) - 1
        with self.name_scope:
            self.layers = [
                Dense(
                    *pair,
                    activation=tf.identity if index == last else tf.nn.relu,
                    product_dtype=product_dtype,
                    seed=[seed, index],
                    name=f"dense_{index}",
                )
                for index, pair in enumerate(pairwise(sizes))
            ]

    def __call__(self, inputs: tf.Tensor) -> tf.Tensor:
        """Maps `[batch_size, input_size]` to logits `[batch_size, num_classes]`."""
        for layer in self.layers:
            inputs = layer(inputs)
        return inputs
