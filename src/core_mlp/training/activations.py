"""The activation functions as curves, for a chart."""

import tensorflow as tf

from core_mlp.results.train import ActivationPoint


def activation_curves() -> list[ActivationPoint]:
    """Returns points of the activation functions, from -4 to 4."""
    x = tf.linspace(-4.0, 4.0, 201)
    points = tf.stack([x, tf.nn.relu(x), tf.nn.softmax(x)], axis=1)
    return [ActivationPoint(*row) for row in points.numpy().tolist()]
