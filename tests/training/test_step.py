"""The loss of a batch."""

import numpy as np
import tensorflow as tf

from core_mlp.training import step


def test_cross_entropy_by_hand():
    logits = tf.math.log([[0.2, 0.8], [0.5, 0.5]])

    losses = step.cross_entropy(tf.constant([1, 0], tf.int64), logits)

    np.testing.assert_allclose(losses, [-np.log(0.8), np.log(2)], rtol=1e-6)


def test_correct_predictions_by_hand():
    logits = tf.constant([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])

    is_correct = step.correct_predictions(tf.constant([1, 1, 1], tf.int64), logits)

    np.testing.assert_array_equal(is_correct, [1.0, 0.0, 1.0])
