"""The activation functions as curves, for a chart."""

import tensorflow as tf

from core_mlp.results.train import ActivationPoint


def activation_curves() -> list[ActivationPoint]:
    """Returns points of the activation functions, from -4 to 4."""
    x = tf.linspace(-4.0, 4.0, 201)
    columns = [x, tf.nn.relu(x), tf.nn.softmax(x)]
    rows = zip(*(column.numpy().tolist() for column in columns), strict=True)
    return [ActivationPoint(*row) for row in rows]
