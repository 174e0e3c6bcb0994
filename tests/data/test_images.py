"""Preprocessing is the same everywhere."""

import numpy as np
import pytest
import tensorflow as tf

from core_mlp.data.images import normalize_images


def test_normalize_images_by_hand():
    images = np.array([0, 51, 255, 102], np.uint8).reshape(1, 2, 2, 1)

    normalized = normalize_images(tf.constant(images))

    np.testing.assert_allclose(
        normalized.numpy().ravel(), [0.0, 0.2, 1.0, 0.4], rtol=1e-7
    )
    assert normalized.dtype == tf.float32


def test_normalize_images_is_the_same_in_a_graph_and_in_tf_data():
    images = np.random.default_rng(0).integers(0, 256, [6, 3, 5, 2], np.uint8)
    expected = normalize_images(tf.constant(images)).numpy()

    dataset = tf.data.Dataset.from_tensors(images).map(normalize_images)

    np.testing.assert_array_equal(expected, tf.function(normalize_images)(images))
    np.testing.assert_array_equal(expected, next(iter(dataset)))


def test_normalize_images_refuses_floats():
    with pytest.raises(TypeError, match="Expected uint8 images, got float32"):
        normalize_images(tf.zeros([1, 2, 2, 1]))
