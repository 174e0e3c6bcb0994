"""The layers."""

import re

import numpy as np
import pytest
import tensorflow as tf

from core_mlp.training.model import MLP, Dense, xavier_uniform


def test_xavier_uniform_fills_its_limits():
    weights = xavier_uniform([300, 200], seed=[1, 2]).numpy()
    limit = np.sqrt(6 / 500)

    assert np.abs(weights).max() <= limit
    assert np.abs(weights).max() > 0.999 * limit
    assert abs(weights.mean()) < 0.01 * limit
    # The variance of U(-limit, limit) is limit**2 / 3.
    np.testing.assert_allclose(weights.var(), limit**2 / 3, rtol=0.02)


def test_xavier_uniform_depends_on_its_seed_alone():
    first, again, other = (
        xavier_uniform([3, 4], seed).numpy() for seed in ([1, 0], [1, 0], [1, 1])
    )

    np.testing.assert_array_equal(first, again)
    assert not np.any(first == other)


def test_dense_by_hand():
    layer = Dense(2, 2, activation=tf.nn.relu, seed=[0, 0])
    layer.weights.assign([[1.0, 2.0], [3.0, -4.0]])
    layer.bias.assign([0.5, 1.0])

    outputs = layer(tf.constant([[1.0, 2.0]]))

    # 1 * 1 + 2 * 3 + 0.5 = 7.5, and 1 * 2 - 2 * 4 + 1 = -5, which ReLU sets to 0.
    np.testing.assert_array_equal(outputs, [[7.5, 0.0]])


def dense_with_gradients(layer, inputs, upstream):
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        outputs = layer(inputs)
    sources = [inputs, layer.weights, layer.bias]
    return outputs, *tape.gradient(outputs, sources, output_gradients=upstream)


# One column or row, odd sizes, sizes below a vector register and above it.
@pytest.mark.parametrize("batch_size", [1, 5, 128])
@pytest.mark.parametrize(("input_size", "output_size"), [(1, 1), (3, 2), (65, 33)])
def test_bfloat16_is_for_the_factors_of_the_products_alone(
    batch_size, input_size, output_size
):
    inputs = tf.random.stateless_normal([batch_size, input_size], [0, 1])
    upstream = tf.random.stateless_normal([batch_size, output_size], [0, 2])
    layer = Dense(input_size, output_size, compute_dtype=tf.bfloat16, seed=[0, 0])
    layer.bias.assign(tf.range(output_size, dtype=tf.float32))

    actual = tf.function(dense_with_gradients, jit_compile=True)(
        layer, inputs, upstream
    )

    x, w, dy = (
        tf.cast(tf.cast(factor, tf.bfloat16), tf.float32).numpy()
        for factor in (inputs, layer.weights, upstream)
    )
    expected = (x @ w + layer.bias.numpy(), dy @ w.T, x.T @ dy, dy.sum(axis=0))
    for actual_values, expected_values in zip(actual, expected, strict=True):
        assert actual_values.dtype == tf.float32
        np.testing.assert_allclose(actual_values, expected_values, rtol=1e-5, atol=1e-5)


def test_no_product_of_a_layer_in_bfloat16_is_widened():
    layer = Dense(64, 32, compute_dtype=tf.bfloat16, seed=[0, 0])
    compiled = tf.function(dense_with_gradients, jit_compile=True)

    tf.random.set_seed(0)  # The next call draws a number, to find its device.
    hlo = compiled.experimental_get_compiler_ir(
        layer, tf.zeros([16, 64]), tf.zeros([16, 32])
    )(stage="optimized_hlo")

    # "%name = f32[16,32]{1,0} dot(%left, %right), ...": the factors are defined above.
    products = re.findall(r" dot\((%[\w.-]+), (%[\w.-]+)\)", hlo)
    factors = {factor for product in products for factor in product}
    assert len(products) == 3
    for factor in factors:
        assert f"{factor} = bf16[" in hlo


def test_mlp_has_the_parameters_of_the_guide():
    model = MLP([28, 28, 1], [700, 500, 10], seed=22)

    shapes = [tuple(variable.shape) for variable in model.trainable_variables]
    assert model.num_parameters == 905_010
    assert {(784, 700), (700, 500), (500, 10), (700,), (500,), (10,)} == set(shapes)


def test_mlp_draws_other_weights_for_each_layer():
    model = MLP([5, 1, 1], [5, 5], seed=0)

    first, second = (layer.weights.numpy() for layer in model.layers)
    assert not np.any(first == second)


def test_mlp_ends_in_logits():
    model = MLP([2, 2, 1], [8, 3], seed=0)
    logits = model(tf.random.stateless_normal([100, 2, 2, 1], seed=[0, 0])).numpy()

    assert logits.shape == (100, 3)
    assert logits.min() < 0


def test_mlp_without_hidden_layers_is_linear():
    model = MLP([1, 2, 1], [3], seed=0)

    np.testing.assert_allclose(
        model(tf.constant([[[[2.0], [4.0]]]])),
        2 * model(tf.constant([[[[1.0], [2.0]]]])),
    )
