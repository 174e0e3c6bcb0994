"""The loss of a batch."""

import numpy as np
import tensorflow as tf
from helpers import train_params
from sklearn.utils.class_weight import compute_class_weight

from core_mlp.training import step


def test_cross_entropy_by_hand():
    logits = tf.math.log([[0.2, 0.8], [0.5, 0.5]])

    losses = step.cross_entropy(tf.constant([1, 0], tf.int64), logits)

    np.testing.assert_allclose(losses, [-np.log(0.8), np.log(2)], rtol=1e-6)


def test_correct_predictions_by_hand():
    logits = tf.constant([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])

    is_correct = step.correct_predictions(tf.constant([1, 1, 1], tf.int64), logits)

    np.testing.assert_array_equal(is_correct, [1.0, 0.0, 1.0])


def test_class_weighted_by_hand():
    logits = tf.math.log([[0.2, 0.8], [0.5, 0.5]])

    losses = step.class_weighted(
        tf.constant([1, 0], tf.int64),
        logits,
        loss=step.cross_entropy,
        class_weights=[3.0, 0.5],
    )

    expected = [-0.5 * np.log(0.8), 3.0 * np.log(2)]
    np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_balanced_weights_let_every_class_count_the_same():
    labels = np.array([0] * 30 + [2] * 3 + [3])
    logits = tf.constant(np.random.default_rng(0).normal(size=[34, 4]), tf.float32)
    weights = step.balanced_weights(np.bincount(labels))
    objective = step.Objective.of(train_params(), weights)

    losses = objective.loss(tf.constant(labels), logits)

    plain = step.cross_entropy(tf.constant(labels), logits).numpy()
    of_classes = [plain[labels == label].mean() for label in (0, 2, 3)]
    np.testing.assert_allclose(np.mean(losses), np.mean(of_classes), rtol=1e-6)
    np.testing.assert_allclose(
        np.take(weights, [0, 2, 3]),
        compute_class_weight("balanced", classes=np.unique(labels), y=labels),
    )
