"""Adam, written from the paper."""

from collections.abc import Sequence

import tensorflow as tf


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
    # The bias correction is float64: in float32, 1 - 0.999 is off by 1 in 80,000.
    t = tf.cast(t, tf.float64)
    m_correction = tf.cast(1.0 - tf.pow(tf.cast(beta_1, tf.float64), t), tf.float32)
    v_correction = tf.cast(1.0 - tf.pow(tf.cast(beta_2, tf.float64), t), tf.float32)
    m = beta_1 * m + (1.0 - beta_1) * gradient
    v = beta_2 * v + (1.0 - beta_2) * tf.square(gradient)
    step = learning_rate * (m / m_correction) / (tf.sqrt(v / v_correction) + epsilon)
    return step, m, v


class Adam(tf.Module):
    """The Adam optimizer.

    Its state consists of variables: they can be saved, and are not frozen into the
    graph as a Python counter would be.

    Attributes:
      m: Exponentially weighted averages of the gradients, a variable per parameter.
      v: Exponentially weighted averages of their squares, a variable per parameter.
      t: Steps taken so far, int64 scalar variable.
    """

    def __init__(
        self,
        parameters: Sequence[tf.Variable],
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str | None = None,
    ) -> None:
        """Creates the state for the parameters; the defaults are the paper's."""
        super().__init__(name=name)
        self._settings = {
            "learning_rate": learning_rate,
            "beta_1": beta_1,
            "beta_2": beta_2,
            "epsilon": epsilon,
        }
        with self.name_scope:
            self.m = [tf.Variable(tf.zeros_like(p), name="m") for p in parameters]
            self.v = [tf.Variable(tf.zeros_like(p), name="v") for p in parameters]
            self.t = tf.Variable(0, dtype=tf.int64, name="t")

    def apply_gradients(
        self, gradients: Sequence[tf.Tensor], parameters: Sequence[tf.Variable]
    ) -> None:
        """Updates the parameters, in the order of `__init__`, by one step.

        Raises:
          ValueError: If the number of gradients or parameters is another.
        """
        self.t.assign_add(1)
        for gradient, parameter, m, v in zip(
            gradients, parameters, self.m, self.v, strict=True
        ):
            step, new_m, new_v = adam_update(gradient, m, v, self.t, **self._settings)
            parameter.assign_sub(step)
            m.assign(new_m)
            v.assign(new_v)
