"""Convolution and pooling, against loops over pixels and TensorFlow's own gradients."""

import re

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, run

from core_mlp.training import model
from core_mlp.training.convolution import convolve, max_pool, patches
from core_mlp.training.model import MLP, Convolution

# One pixel, one row, odd and even sides; few channels and many, which take other ways.
SHAPES = [(1, 1, 1), (1, 5, 2), (4, 4, 1), (5, 3, 3), (7, 8, 5)]


def draw(shape, seed=0):
    return tf.random.stateless_normal(shape, [seed, 1])


def convolve_pixels(images, filters):
    """Sums the products at each pixel, as the definition says."""
    _, height, width, _ = images.shape
    padded = np.pad(images, [(0, 0), (1, 1), (1, 1), (0, 0)])
    outputs = np.zeros([*images.shape[:3], filters.shape[3]])
    for y in range(height):
        for x in range(width):
            window = padded[:, y : y + 3, x : x + 3]
            outputs[:, y, x] = np.tensordot(window, filters, 3)
    return outputs


def with_gradients(function, *inputs, upstream, compiled=True):
    def compute(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = function(*inputs)
        return outputs, tape.gradient(outputs, inputs, output_gradients=upstream)

    return tf.function(compute, jit_compile=compiled)(*inputs)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_convolve_sums_the_products_at_each_pixel(shape):
    images, filters = draw([3, *shape]), draw([3, 3, shape[2], 5], 1)
    expected = convolve_pixels(images.numpy(), filters.numpy())

    outputs = convolve(images, filters)
    products = patches(images) @ tf.reshape(filters, [-1, 5])

    np.testing.assert_allclose(outputs, expected, atol=1e-5)
    np.testing.assert_allclose(products, expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradients_of_convolve_are_those_of_tensorflow(shape):
    images, filters = draw([3, *shape]), draw([3, 3, shape[2], 5], 1)
    upstream = draw([3, *shape[:2], 5], 2)

    _, expected = with_gradients(
        lambda images, filters: tf.nn.conv2d(images, filters, 1, "SAME"),
        *(images, filters),
        upstream=upstream,
        compiled=False,
    )
    _, gradients = with_gradients(convolve, images, filters, upstream=upstream)

    for actual, of_tensorflow in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(actual, of_tensorflow, atol=1e-4)


def test_max_pool_by_hand():
    images = tf.constant([[[1.0, -2.0, 3.0], [0.0, 4.0, 3.0], [-5.0, -6.0, -7.0]]])
    images = images[..., tf.newaxis]
    upstream = tf.constant([[[[10.0], [20.0]], [[30.0], [40.0]]]])

    pooled, [gradient] = with_gradients(max_pool, images, upstream=upstream)

    np.testing.assert_array_equal(pooled[0, ..., 0], [[4.0, 3.0], [-5.0, -7.0]])
    # The two 3s share their gradient.
    np.testing.assert_array_equal(
        gradient[0, ..., 0], [[0.0, 0.0, 10.0], [0.0, 10.0, 10.0], [30.0, 0.0, 40.0]]
    )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_max_pool_is_that_of_tensorflow(shape):
    images = draw([3, *shape])
    upstream = draw([3, -(-shape[0] // 2), -(-shape[1] // 2), shape[2]], 1)

    expected = with_gradients(
        lambda images: tf.nn.max_pool2d(images, 2, 2, "SAME"),
        images,
        upstream=upstream,
        compiled=False,
    )
    actual = with_gradients(max_pool, images, upstream=upstream)

    np.testing.assert_array_equal(actual[0], expected[0])
    np.testing.assert_array_equal(actual[1], expected[1])


def test_a_layer_by_hand():
    layer = Convolution(1, 2, seed=[0, 0])
    # The first filter adds up a pixel and its right neighbor; the second negates.
    filters = np.zeros([3, 3, 1, 2], np.float32)
    filters[1, 1:, 0, 0] = 1.0
    filters[1, 1, 0, 1] = -1.0
    layer.filters.assign(filters)
    layer.bias.assign([0.5, 2.0])

    outputs = layer(tf.constant([[[[1.0], [2.0], [4.0]], [[3.0], [0.0], [5.0]]]]))

    # Sums 3 6 4 and 3 5 5: maxima 6, 5. Negatives: maxima 0, -4. Then bias and ReLU.
    np.testing.assert_array_equal(outputs, [[[[6.5, 2.0], [5.5, 0.0]]]])


def test_filters_are_drawn_by_what_a_pixel_sees():
    filters = Convolution(20, 30, seed=[1, 2]).filters.numpy()
    limit = np.sqrt(6 / (9 * 20 + 9 * 30))

    assert filters.shape == (3, 3, 20, 30)
    assert 0.99 * limit < np.abs(filters).max() <= limit


@pytest.mark.parametrize(("channels", "num_filters"), [(1, 1), (3, 8), (32, 64)])
def test_bfloat16_is_for_the_factors_of_the_products_alone(channels, num_filters):
    images = draw([5, 6, 7, channels])
    layer = Convolution(channels, num_filters, compute_dtype=tf.bfloat16, seed=[0, 0])
    layer.bias.assign(draw([num_filters], 1))
    upstream = draw([5, 6, 7, num_filters], 2)
    inputs = [images, tf.constant(layer.filters), tf.constant(layer.bias)]
    outputs, gradients = with_gradients(
        model.bfloat16_convolution, *inputs, upstream=upstream
    )

    def rounded(values):
        return tf.cast(tf.cast(values, tf.bfloat16), tf.float32)

    expected, expected_gradients = with_gradients(
        convolve, *map(rounded, inputs[:2]), upstream=rounded(upstream)
    )
    np.testing.assert_allclose(outputs, expected + inputs[2], rtol=1e-4, atol=1e-4)
    for actual, of_rounded in zip(gradients[:2], expected_gradients, strict=True):
        np.testing.assert_allclose(actual, of_rounded, rtol=1e-4, atol=1e-3)


def test_no_product_of_a_layer_in_bfloat16_is_widened():
    layer = Convolution(32, 64, compute_dtype=tf.bfloat16, seed=[0, 0])

    @tf.function(jit_compile=True)
    def gradients(images):
        with tf.GradientTape() as tape:
            tape.watch(images)
            loss = tf.reduce_sum(layer(images) ** 2)
        return tape.gradient(loss, [images, layer.filters, layer.bias])

    tf.random.set_seed(0)  # The next call draws a number, to find its device.
    hlo = gradients.experimental_get_compiler_ir(tf.zeros([16, 14, 14, 32]))(
        stage="optimized_hlo"
    )

    products = re.findall(r" dot\((%[\w.-]+), (%[\w.-]+)\)", hlo)
    assert len(products) == 3
    for factor in {factor for product in products for factor in product}:
        assert f"{factor} = bf16[" in hlo


def test_a_network_with_convolutions_halves_the_sides():
    network = MLP([28, 27, 3], [128, 10], conv_filters=[32, 64], seed=22)

    shapes = [tuple(variable.shape) for variable in network.trainable_variables]
    assert sorted(shapes) == sorted(
        [
            *[(3, 3, 3, 32), (32,), (3, 3, 32, 64), (64,)],
            *[(7 * 7 * 64, 128), (128,), (128, 10), (10,)],
        ]
    )
    assert network(tf.zeros([2, 28, 27, 3])).shape == (2, 10)


def test_a_network_with_convolutions_draws_other_weights_for_each_layer():
    network = MLP([2, 2, 1], [9], conv_filters=[1], seed=0)

    convolution, dense = network.layers
    drawn = convolution.filters.numpy().ravel(), dense.weights.numpy().ravel()
    # Scaled to [-1, 1], the same draws would be equal.
    scaled = [values / np.abs(values).max() for values in drawn]
    assert not np.any(np.isclose(*scaled))


ON_SOME_CORES = """
import hashlib
import stages
import tensorflow as tf
from core_mlp.training import device, model
device.set_up_device()

@tf.function(jit_compile=True)
def gradients(network, images):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(network(images) ** 2)
    return tape.gradient(loss, network.trainable_variables)

network = model.MLP([28, 28, 1], [128, 10], conv_filters=[32, 64], seed=0)
found = gradients(network, tf.random.stateless_uniform([128, 28, 28, 1], [0, 1]))
print(hashlib.sha256(b"".join(g.numpy().tobytes() for g in found)).hexdigest())
"""


@pytest.mark.slow
def test_the_gradients_of_mnists_size_are_the_same_on_one_core_and_two():
    found = {
        run(
            "taskset", "--cpu-list", cores, "python", "-c", ON_SOME_CORES, cwd=ROOT
        ).split()[-1]
        for cores in ("0", "0,1")
    }
    assert len(found) == 1
