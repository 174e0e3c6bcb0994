"""Adam, written from the papers; a cosine schedule; an average of the weights."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import tensorflow as tf

from core_mlp.pipeline.params import TrainParams


def adam_update(
    gradient: tf.Tensor,
    m: tf.Tensor,
    v: tf.Tensor,
    t: tf.Tensor,
    *,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    r"""Computes one step of Adam, by Algorithm 1 of the paper.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t$$
    $$v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2$$
    $$\Delta_t = \alpha \frac{m_t / (1 - \beta_1^t)}
                             {\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}$$

    Epsilon is outside the root and after the bias correction, as in Algorithm 1. Keras
    uses the "epsilon hat" of the paper's section 2 instead.

    Args:
      gradient: Gradient of the loss, any shape, float32.
      m: Exponentially weighted average of the gradients; shape of `gradient`.
      v: Exponentially weighted average of their squares; shape of `gradient`.
      t: Step number, scalar; the first step is 1.
      learning_rate: Step size, the paper's alpha.
      beta_1: Decay rate of `m`, in [0, 1).
      beta_2: Decay rate of `v`, in [0, 1).
      epsilon: Avoids division by zero.

    Returns:
      The step to subtract from the parameter, and the new `m` and `v`.

    References:
      Kingma & Ba, 2015: Adam: A Method for Stochastic Optimization.
    """
    # In float32, the power and the difference would be off by up to 1 in 70,000. (The
    # decay rates become float32, as they are in the updates of m and v.)
    t = tf.cast(t, tf.float64)
    m_correction = tf.cast(1.0 - tf.pow(tf.cast(beta_1, tf.float64), t), tf.float32)
    v_correction = tf.cast(1.0 - tf.pow(tf.cast(beta_2, tf.float64), t), tf.float32)
    m = beta_1 * m + (1.0 - beta_1) * gradient
    v = beta_2 * v + (1.0 - beta_2) * tf.square(gradient)
    step = learning_rate * (m / m_correction) / (tf.sqrt(v / v_correction) + epsilon)
    return step, m, v


def cosine_schedule(t: tf.Tensor, num_steps: int) -> tf.Tensor:
    """Returns the factor of the learning rate: from 1 down to 0 along a cosine.

    Over the first hundredth of the steps, it rises linearly from 0.

    Args:
      t: Step number, scalar; the first step is 1.
      num_steps: Steps of the whole training run.

    References:
      Loshchilov & Hutter, 2017: SGDR: Stochastic gradient descent with warm restarts,
      equation 5, without restarts.
    """
    progress = tf.cast(t - 1, tf.float32) / num_steps
    return tf.minimum(100.0 * progress, 0.5 * (1.0 + tf.cos(math.pi * progress)))


class Adam(tf.Module):
    """The Adam optimizer.

    Its state consists of variables: they can be saved, and are not frozen into the
    graph as a Python counter would be.

    Attributes:
      m: Exponentially weighted averages of the gradients, a variable per parameter.
      v: Exponentially weighted averages of their squares, a variable per parameter.
      t: Steps taken so far, int64 scalar variable.

    References:
      Loshchilov & Hutter, 2019: Decoupled weight decay regularization.
    """

    def __init__(
        self,
        parameters: Sequence[tf.Variable],
        *,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        schedule: Callable[[tf.Tensor], tf.Tensor] | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        """Creates the state for the parameters; the defaults are the paper's.

        A schedule maps the step number to a factor of the learning rate. Weight decay
        is decoupled, as in AdamW: each step also subtracts the learning rate times
        `weight_decay` times the parameter. For the other settings see `adam_update`.
        """
        super().__init__()
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._weight_decay = weight_decay
        self._settings = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon}
        with self.name_scope:
            self.m = [tf.Variable(tf.zeros_like(p), name="m") for p in parameters]
            self.v = [tf.Variable(tf.zeros_like(p), name="v") for p in parameters]
            self.t = tf.Variable(0, dtype=tf.int64, name="t")

    def apply_gradients(
        self, gradients: Sequence[tf.Tensor], parameters: Sequence[tf.Variable]
    ) -> None:
        """Updates the parameters, in the order of `__init__`, by one step.

        Raises:
          ValueError: If the number of gradients or parameters differs.
        """
        self.t.assign_add(1)
        rate = self._learning_rate
        if self._schedule:
            rate *= self._schedule(self.t)
        for gradient, parameter, m, v in zip(
            gradients, parameters, self.m, self.v, strict=True
        ):
            step, new_m, new_v = adam_update(
                gradient, m, v, self.t, learning_rate=rate, **self._settings
            )
            if self._weight_decay:
                step += rate * self._weight_decay * parameter
            parameter.assign_sub(step)
            m.assign(new_m)
            v.assign(new_v)


class Averaging(tf.Module):
    """An optimizer that also keeps an exponential moving average of the weights.

    The decay rate is at most `t / (t + 9)` in step t, so that the average soon forgets
    the first weights.

    Attributes:
      average: The averages, a variable per parameter.

    References:
      Polyak & Juditsky, 1992: Acceleration of stochastic approximation by averaging;
      Tan & Le, 2019: EfficientNet, for the exponential form.
    """

    def __init__(
        self, optimizer: Adam, average: Sequence[tf.Variable], decay: float
    ) -> None:
        """Wraps an optimizer; the averages start from the values of `average`."""
        super().__init__()
        self.optimizer = optimizer
        self.average = average
        self._decay = decay

    def apply_gradients(
        self, gradients: Sequence[tf.Tensor], parameters: Sequence[tf.Variable]
    ) -> None:
        """Updates the parameters by one step, then the averages."""
        self.optimizer.apply_gradients(gradients, parameters)
        t = tf.cast(self.optimizer.t, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, t / (t + 9.0))
        for average, parameter in zip(self.average, parameters, strict=True):
            average.assign_add(rate * (parameter - average))


def build_optimizer(
    model: tf.Module, average: tf.Module, p: TrainParams, num_examples: int
) -> tf.Module:
    """Builds the optimizer of a training run from its parameters."""
    schedule = None
    if p.schedule == "cosine":
        num_steps = p.epochs * math.ceil(num_examples / p.batch_size)
        schedule = partial(cosine_schedule, num_steps=num_steps)
    adam = Adam(
        model.trainable_variables,
        learning_rate=p.learning_rate,
        beta_1=p.beta_1,
        beta_2=p.beta_2,
        epsilon=p.epsilon,
        schedule=schedule,
        weight_decay=p.weight_decay,
    )
    if not p.ema_decay:
        return adam
    return Averaging(adam, average.trainable_variables, p.ema_decay)
