"""Adam, against the paper in float64."""

import numpy as np
import pytest
import tensorflow as tf
from helpers import train_params

from core_mlp.training.model import MLP
from core_mlp.training.optimizers import (
    Adam,
    Averaging,
    adam_update,
    build_optimizer,
    cosine_schedule,
)

HYPERPARAMETERS = {
    "learning_rate": 0.01,
    "beta_1": 0.8,
    "beta_2": 0.97,
    "epsilon": 1e-3,
}


def numpy_adam(
    parameter, gradients, *, learning_rate, beta_1, beta_2, epsilon, weight_decay=0.0
):
    """Algorithm 1 of Kingma & Ba, 2015, line by line in float64; AdamW's decay."""
    m = v = np.zeros_like(parameter)
    for t, gradient in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        m_hat = m / (1 - beta_1**t)
        v_hat = v / (1 - beta_2**t)
        step = m_hat / (np.sqrt(v_hat) + epsilon) + weight_decay * parameter
        parameter = parameter - learning_rate * step
    return parameter


def test_adam_update_by_hand():
    step, m, v = adam_update(
        tf.constant(2.0),
        tf.constant(0.0),
        tf.constant(0.0),
        tf.constant(1),
        learning_rate=0.1,
        beta_1=0.9,
        beta_2=0.99,
        epsilon=1.0,
    )

    # The first step has m_hat = g and v_hat = g**2: 0.1 * 2 / (2 + 1).
    np.testing.assert_allclose([step, m, v], [0.2 / 3, 0.2, 0.04], rtol=1e-6)


@pytest.mark.parametrize("t", [1, 2, 3, 10, 100, 10_000])
def test_the_bias_correction_is_computed_in_float64(t):
    hyperparameters = {"learning_rate": 1.0, "beta_1": 0.9, "beta_2": 0.999}
    m, v = tf.constant(0.0), tf.constant(4.0)

    step, m, v = adam_update(
        tf.constant(1.0), m, v, tf.constant(t), epsilon=0.0, **hyperparameters
    )

    # The decay rates are float32, as they are in the updates of m and v. From there on,
    # float32 would be off by up to 1 in 70,000: at t = 2, 1 - 0.998001.
    beta_1, beta_2 = (float(np.float32(beta)) for beta in (0.9, 0.999))
    m_hat, v_hat = float(m) / (1 - beta_1**t), float(v) / (1 - beta_2**t)
    np.testing.assert_allclose(step, m_hat / v_hat**0.5, rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "weight_decay"), [(1e-4, 0.0), (1.0, 0.0), (1e3, 0.0), (1.0, 0.3)]
)
def test_adam_agrees_with_float64_over_100_different_gradients(scale, weight_decay):
    settings = HYPERPARAMETERS | {"weight_decay": weight_decay}
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(4, 3)), rng.normal(size=3)]
    gradients = [[scale * rng.normal(size=p.shape) for p in start] for _ in range(100)]
    parameters = [tf.Variable(p, dtype=tf.float32) for p in start]
    optimizer = Adam(parameters, **settings)

    for step in gradients:
        optimizer.apply_gradients(
            [tf.constant(g, tf.float32) for g in step], parameters
        )

    assert optimizer.t.numpy() == 100
    for index, parameter in enumerate(parameters):
        expected = numpy_adam(
            start[index], [step[index] for step in gradients], **settings
        )
        # A thousandth of one step.
        np.testing.assert_allclose(parameter, expected, rtol=0, atol=1e-5)


def test_adam_counts_its_steps_in_a_graph_and_traces_once():
    parameter = tf.Variable([1.0, -2.0])
    optimizer = Adam([parameter], **HYPERPARAMETERS)
    traces = []

    @tf.function
    def step(gradient):
        traces.append(1)
        optimizer.apply_gradients([gradient], [parameter])

    gradients = np.random.default_rng(0).normal(size=(5, 2))
    for gradient in gradients:
        step(tf.constant(gradient, tf.float32))

    expected = numpy_adam(np.array([1.0, -2.0]), gradients, **HYPERPARAMETERS)
    np.testing.assert_allclose(parameter, expected, atol=1e-6)
    assert len(traces) == 1


def test_adam_reaches_the_minimum_of_a_quadratic():
    minimum = tf.constant([3.0, -1.0, 0.5])
    parameter = tf.Variable(tf.zeros([3]))
    optimizer = Adam([parameter], learning_rate=0.05)

    for _ in range(1000):
        optimizer.apply_gradients([2.0 * (parameter - minimum)], [parameter])

    np.testing.assert_allclose(parameter, minimum, atol=1e-3)


def test_adam_resumes_from_a_checkpoint(tmp_path):
    gradient = tf.constant([0.3, -0.7])

    def create():
        parameter = tf.Variable([1.0, 2.0])
        optimizer = Adam([parameter], **HYPERPARAMETERS)
        return parameter, optimizer, tf.train.Checkpoint(p=parameter, o=optimizer)

    parameter, optimizer, checkpoint = create()
    for _ in range(3):
        optimizer.apply_gradients([gradient], [parameter])
    path = checkpoint.write(str(tmp_path / "state"))
    optimizer.apply_gradients([-gradient], [parameter])

    resumed, resumed_optimizer, resumed_checkpoint = create()
    resumed_checkpoint.read(path).assert_consumed()
    resumed_optimizer.apply_gradients([-gradient], [resumed])

    np.testing.assert_array_equal(parameter, resumed)


def test_adam_refuses_another_number_of_parameters():
    parameters = [tf.Variable([1.0]), tf.Variable([2.0])]
    optimizer = Adam(parameters)

    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is longer"):
        optimizer.apply_gradients([tf.constant([1.0])], parameters)


def test_the_cosine_schedule_by_hand():
    rates = [
        float(cosine_schedule(tf.constant(t), 1000)) for t in (1, 6, 11, 501, 1001)
    ]

    expected = [0.0, 0.5, (1 + np.cos(np.pi / 100)) / 2, 0.5, 0.0]
    np.testing.assert_allclose(rates, expected, atol=1e-6)


def test_the_schedule_scales_adams_steps():
    gradient = [tf.constant([1.0])]
    weights = [tf.Variable([0.0]) for _ in range(2)]
    plain = Adam(weights[:1], learning_rate=0.1)
    scheduled = Adam(
        weights[1:], learning_rate=0.1, schedule=lambda t: 1.0 / tf.cast(t, tf.float32)
    )
    steps = []
    for _ in range(3):
        before = [float(weight[0]) for weight in weights]
        plain.apply_gradients(gradient, weights[:1])
        scheduled.apply_gradients(gradient, weights[1:])
        steps.append([b - float(w[0]) for b, w in zip(before, weights, strict=True)])

    np.testing.assert_allclose(
        [s[1] / s[0] for s in steps], [1, 1 / 2, 1 / 3], rtol=1e-5
    )


def test_the_schedule_scales_the_weight_decay():
    weight = tf.Variable([1.0])
    settings = {"schedule": lambda t: 1.0 / tf.cast(t, tf.float32), "weight_decay": 0.5}
    optimizer = Adam([weight], learning_rate=0.1, **settings)

    for _ in range(3):
        optimizer.apply_gradients([tf.constant([0.0])], [weight])

    expected = (1 - 0.05) * (1 - 0.05 / 2) * (1 - 0.05 / 3)
    np.testing.assert_allclose(weight, [expected], rtol=1e-6)


def test_the_weight_decay_is_that_of_the_parameters():
    model = MLP([3, 1, 1], [2], seed=0)
    before = [weights.numpy() for weights in model.trainable_variables]
    p = train_params(learning_rate=0.1, weight_decay=0.5)

    optimizer = build_optimizer(model, model, p, num_examples=100)
    zeros = [tf.zeros_like(weights) for weights in model.trainable_variables]
    optimizer.apply_gradients(zeros, model.trainable_variables)

    for weights, old in zip(model.trainable_variables, before, strict=True):
        np.testing.assert_allclose(weights, 0.95 * old, rtol=1e-6)


def test_the_average_agrees_with_float64_over_100_steps():
    rng = np.random.default_rng(0)
    weights = tf.Variable(rng.normal(size=3), dtype=tf.float32)
    average = tf.Variable(weights)
    optimizer = Averaging(Adam([weights], learning_rate=0.1), [average], decay=0.9)
    expected = weights.numpy().astype(np.float64)

    for t in range(1, 101):
        optimizer.apply_gradients(
            [tf.constant(rng.normal(size=3), tf.float32)], [weights]
        )
        decay = min(0.9, t / (t + 9))
        expected = decay * expected + (1 - decay) * weights.numpy()

    np.testing.assert_allclose(average, expected, rtol=1e-5)
    assert np.all(np.abs(average - weights) > 1e-3)
