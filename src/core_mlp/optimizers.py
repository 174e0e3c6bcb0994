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
    r"""Computes one step of Algorithm 1 of the paper.

    $$m_t = \beta_1 m_{t-1} + (1 - \beta_1) g_t$$
    $$v_t = \beta_2 v_{t-1} + (1 - \beta_2) g_t^2$$
    $$\Delta_t = \alpha \frac{m_t / (1 - \beta_1^t)}
                             {\sqrt{v_t / (1 - \beta_2^t)} + \epsilon}$$

    Epsilon stands outside the root and after the bias correction, as in Algorithm 1;
    the "epsilon hat" of the paper's section 2 (used by Keras) is another number.

    Args:
      gradient: Of the loss, any shape, float32.
      m: Decayed mean of the gradients so far; shape of `gradient`.
      v: Decayed mean of their squares so far; shape of `gradient`.
      t: Number of this step, scalar; the first is 1.
      learning_rate: The paper's alpha.
      beta_1: Decay rate of `m`.
      beta_2: Decay rate of `v`.
      epsilon: Against division by zero.

    Returns:
      The step to subtract from the parameter, and the new `m` and `v`.

    References:
      Kingma & Ba, 2015: Adam: A Method for Stochastic Optimization.
    """
    # In float32, 1 - 0.999 is off by one part in 80,000: correct the bias in float64.
    t = tf.cast(t, tf.float64)
    m_correction = tf.cast(1.0 - tf.pow(tf.cast(beta_1, tf.float64), t), tf.float32)
    v_correction = tf.cast(1.0 - tf.pow(tf.cast(beta_2, tf.float64), t), tf.float32)
    m = beta_1 * m + (1.0 - beta_1) * gradient
    v = beta_2 * v + (1.0 - beta_2) * tf.square(gradient)
    step = learning_rate * (m / m_correction) / (tf.sqrt(v / v_correction) + epsilon)
    return step, m, v


class Adam(tf.Module):
    """The Adam optimizer.

    Its state is made of variables, so that it survives tracing (a Python counter
    would be frozen into the graph) and can be saved in a checkpoint.

    Attributes:
      m: Decayed means of the gradients, a variable per parameter.
      v: Decayed means of their squares, a variable per parameter.
      t: Steps taken so far, int64 scalar variable.
    """

    def __init__(
        self,
        parameters: Sequence[tf.Variable],
        *,
        learning_rate: float = 1e-3,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str | None = None,
    ) -> None:
        """Creates the state; the defaults are the paper's.

        Args:
          parameters: The variables to train; the state takes their shapes.
          learning_rate: The paper's alpha.
          beta_1: Decay rate of the gradients' mean, 0 to below 1.
          beta_2: Decay rate of the squared gradients' mean, 0 to below 1.
          epsilon: Against division by zero.
          name: Of the module.
        """
        super().__init__(name=name)
        self._learning_rate = learning_rate
        self._beta_1 = beta_1
        self._beta_2 = beta_2
        self._epsilon = epsilon
        with self.name_scope:
            self.m = [tf.Variable(tf.zeros_like(p), name="m") for p in parameters]
            self.v = [tf.Variable(tf.zeros_like(p), name="v") for p in parameters]
            self.t = tf.Variable(0, dtype=tf.int64, name="t")

    # XLA fuses the update into few passes over memory. As loose operations it takes a
    # third of the time of a training step.
    @tf.function(jit_compile=True)
    def apply_gradients(
        self, gradients: Sequence[tf.Tensor], parameters: Sequence[tf.Variable]
    ) -> None:
        """Takes one step.

        Args:
          gradients: Of the loss, one per parameter.
          parameters: Those that the optimizer was created for, in the same order.

        Raises:
          ValueError: If there are not as many as the optimizer was created for.
        """
        self.t.assign_add(1)
        for gradient, parameter, m, v in zip(
            gradients, parameters, self.m, self.v, strict=True
        ):
            step, new_m, new_v = adam_update(
                gradient,
                m,
                v,
                self.t,
                learning_rate=self._learning_rate,
                beta_1=self._beta_1,
                beta_2=self._beta_2,
                epsilon=self._epsilon,
            )
            parameter.assign_sub(step)
            m.assign(new_m)
            v.assign(new_v)
