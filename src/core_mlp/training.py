"""The loss, the compiled epoch and the loop over epochs."""

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import tensorflow as tf

from core_mlp.errors import InputError
from core_mlp.images import normalise_images

# Images per step of an evaluation; it has no influence on the result.
EVALUATION_BATCH_SIZE = 1000


class Examples(NamedTuple):
    """Images with their labels, resident on the device.

    Attributes:
      images: `[N, H, W, C]` uint8, 0 to 255.
      labels: `[N]` int64, 0 to number of classes - 1.
    """

    images: tf.Tensor
    labels: tf.Tensor


class EpochMetrics(NamedTuple):
    """What is known after an epoch.

    The training figures are means over the epoch's examples, each taken by the
    weights of its own step; the validation figures are by the weights at the end.

    Attributes:
      epoch: Number of the epoch, from 1.
      train_loss: Mean cross-entropy in nats.
      validation_loss: Mean cross-entropy in nats.
      train_accuracy: Share of right answers, 0 to 1.
      validation_accuracy: Share of right answers, 0 to 1.
      images_per_second: Of the training alone; the first epoch has the tracing in it.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    train_accuracy: float
    validation_accuracy: float
    images_per_second: float


def set_up_device() -> str:
    """Makes TensorFlow deterministic, and modest with the memory of a GPU.

    Returns:
      The name of the device that the training will run on.
    """
    # XLA:CPU would copy weights in every step. Read when XLA first compiles.
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_cpu_copy_insertion_use_region_analysis=true"
    )
    tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        return "CPU"
    details = tf.config.experimental.get_device_details(gpus[0])
    return f"GPU ({details.get('device_name', 'unnamed')})"


def cross_entropy(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Computes the cross-entropy of each example from its logits.

    Args:
      labels: `[B]` int64, the true classes.
      logits: `[B, num_classes]` float32.

    Returns:
      `[B]` float32 losses in nats: `-log(softmax(logits)[label])`.
    """
    # A product, not a gather: the gradient of a gather is a scatter, whose order of
    # additions a GPU does not fix.
    of_label = tf.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return -tf.reduce_sum(of_label * tf.nn.log_softmax(logits), axis=1)


def mark_correct(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Marks the examples whose largest logit is that of their label.

    Args:
      labels: `[B]` int64, the true classes.
      logits: `[B, num_classes]` float32.

    Returns:
      `[B]` float32: 1 for a right answer, 0 for a wrong one.
    """
    return tf.cast(tf.equal(tf.argmax(logits, axis=1), labels), tf.float32)


def epoch_order(num_examples: int, seed: Sequence[int]) -> tf.Tensor:
    """Draws the order of the examples in one epoch.

    It is to be called eagerly: XLA draws other numbers from the same seed.

    Args:
      num_examples: In the training split.
      seed: Two integers: of the run, and the number of the epoch.

    Returns:
      `[num_examples]` int32, a permutation.
    """
    return tf.argsort(tf.random.stateless_uniform([num_examples], seed), stable=True)


def cut_batches(order: tf.Tensor, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Cuts the examples into batches of one size, as XLA's static shapes need it.

    >>> indices, weights = cut_batches(tf.constant([2, 0, 1]), batch_size=2)
    >>> indices.numpy().tolist(), weights.numpy().tolist()
    ([[2, 0], [1, 0]], [[1.0, 1.0], [1.0, 0.0]])

    Args:
      order: `[num_examples]` int32, indices of examples; the length is static.
      batch_size: Examples per batch; at most all of them are in one.

    Returns:
      `[num_batches, batch_size]` int32 indices and float32 weights. The weights are 1,
      but 0 where the last batch is filled up with an example that does not count.
    """
    num_examples = order.shape[0]
    batch_size = min(batch_size, num_examples)
    num_batches = math.ceil(num_examples / batch_size)
    padding = [[0, num_batches * batch_size - num_examples]]
    return tuple(
        tf.reshape(tf.pad(values, padding), [num_batches, batch_size])
        for values in (order, tf.ones([num_examples]))
    )


def train_steps(
    model: tf.Module,
    optimizer: tf.Module,
    examples: Examples,
    order: tf.Tensor,
    batch_size: int,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Trains on every example once, in mini-batches.

    To be compiled by `tf.function`: examples and variables stay on the device then,
    and nothing returns to Python before the end.

    Args:
      model: Maps `[B, H * W * C]` float32 to logits `[B, num_classes]`.
      optimizer: Has `apply_gradients(gradients, parameters)`.
      examples: To train on.
      order: `[num_examples]` int32, a permutation.
      batch_size: Examples per step; the last step has the remainder.

    Returns:
      Sum of the losses and number of right answers, float64 scalars; each example
      counts as it was when it was trained on. And an int32 scalar: the number of steps
      before the first whose loss is not finite.
    """
    parameters = model.trainable_variables
    indices, weights = cut_batches(order, batch_size)
    loss_sum = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0.0, tf.float64)
    num_finite_steps = tf.constant(len(indices))
    for step in tf.range(len(indices)):
        labels = tf.gather(examples.labels, indices[step])
        inputs = normalise_images(tf.gather(examples.images, indices[step]))
        with tf.GradientTape() as tape:
            logits = model(inputs)
            losses = cross_entropy(labels, logits) * weights[step]
            loss = tf.reduce_sum(losses) / tf.reduce_sum(weights[step])
        optimizer.apply_gradients(tape.gradient(loss, parameters), parameters)
        loss_sum += tf.cast(tf.reduce_sum(losses), tf.float64)
        is_correct = mark_correct(labels, logits) * weights[step]
        num_correct += tf.cast(tf.reduce_sum(is_correct), tf.float64)
        num_finite_steps = tf.where(
            tf.math.is_finite(loss),
            num_finite_steps,
            tf.minimum(num_finite_steps, step),
        )
    return loss_sum, num_correct, num_finite_steps


def evaluate(
    model: tf.Module, examples: Examples, batch_size: int = EVALUATION_BATCH_SIZE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Computes the mean loss and the accuracy of a model.

    Args:
      model: Maps `[B, H * W * C]` float32 to logits `[B, num_classes]`.
      examples: Any split.
      batch_size: Examples per step; it has no influence on the result.

    Returns:
      Mean loss and accuracy, float64 scalars.
    """
    num_examples = examples.images.shape[0]
    indices, weights = cut_batches(tf.range(num_examples), batch_size)
    loss_sum = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0.0, tf.float64)
    for step in tf.range(len(indices)):
        labels = tf.gather(examples.labels, indices[step])
        logits = model(normalise_images(tf.gather(examples.images, indices[step])))
        losses = cross_entropy(labels, logits) * weights[step]
        loss_sum += tf.cast(tf.reduce_sum(losses), tf.float64)
        is_correct = mark_correct(labels, logits) * weights[step]
        num_correct += tf.cast(tf.reduce_sum(is_correct), tf.float64)
    return loss_sum / num_examples, num_correct / num_examples


def train(
    model: tf.Module,
    optimizer: tf.Module,
    chunks_of_epoch: Callable[[int], Iterable[tuple[Examples, tf.Tensor]]],
    validation_examples: Examples,
    *,
    epochs: Iterable[int],
    batch_size: int,
) -> Iterator[EpochMetrics]:
    """Trains a model, and reports after each epoch; XLA compiles both.

    Args:
      model: Maps `[B, H * W * C]` float32 to logits `[B, num_classes]`.
      optimizer: Has `apply_gradients(gradients, parameters)`.
      chunks_of_epoch: From the number of an epoch, from 1, to the training examples:
        all at once or in parts, each with an order for `train_steps`.
      validation_examples: The validation split.
      epochs: The number of each epoch; an interrupted training goes on with the next.
      batch_size: Examples per step.

    Yields:
      The metrics of each epoch.

    Raises:
      InputError: If a loss is not finite.
    """
    compiled_steps, compiled_evaluation = (
        tf.function(function, jit_compile=True) for function in (train_steps, evaluate)
    )
    for epoch in epochs:
        start = time.perf_counter()
        num_examples, loss_sum, num_correct, finite_steps = 0, 0.0, 0.0, []
        for examples, order in chunks_of_epoch(epoch):
            losses, correct, num_finite_steps = compiled_steps(
                model, optimizer, examples, order, batch_size
            )
            num_examples += len(order)
            # Still tensors: the next chunk can be made ready while this one runs.
            loss_sum += losses
            num_correct += correct
            finite_steps.append((num_finite_steps, math.ceil(len(order) / batch_size)))
        train_loss = float(loss_sum) / num_examples
        train_accuracy = float(num_correct) / num_examples
        seconds = time.perf_counter() - start
        validation_loss, validation_accuracy = map(
            float, compiled_evaluation(model, validation_examples)
        )
        _check_finite(epoch, finite_steps, validation_loss)
        yield EpochMetrics(
            epoch,
            train_loss,
            validation_loss,
            train_accuracy,
            validation_accuracy,
            num_examples / seconds,
        )


def _check_finite(
    epoch: int, finite_steps: list[tuple[tf.Tensor, int]], validation_loss: float
) -> None:
    """Raises InputError if an epoch had a loss that is not finite.

    Args:
      epoch: Its number.
      finite_steps: Of each chunk, the steps before the first whose loss is not finite,
        and all steps.
      validation_loss: After the last step.
    """
    hint = "try a smaller learning_rate"
    step = 1
    for num_finite_steps, num_steps in finite_steps:
        step += int(num_finite_steps)
        if num_finite_steps < num_steps:
            raise InputError(
                f"training diverged: the loss of epoch {epoch}, step {step} is not "
                f"finite; {hint}"
            )
    if not math.isfinite(validation_loss):
        raise InputError(
            f"training diverged: the validation loss after epoch {epoch} is not "
            f"finite; {hint}"
        )
