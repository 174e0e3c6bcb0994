"""The loss, the compiled epoch and the loop over epochs."""

import math
import time
from collections.abc import Iterator
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
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)


def count_correct(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Counts the examples whose largest logit is that of their label.

    Args:
      labels: `[B]` int64, the true classes.
      logits: `[B, num_classes]` float32.

    Returns:
      int64 scalar.
    """
    is_correct = tf.equal(tf.argmax(logits, axis=1), labels)
    return tf.math.count_nonzero(is_correct, dtype=tf.int64)


def epoch_order(num_examples: int, seed: tf.Tensor) -> tf.Tensor:
    """Draws the order of the examples in one epoch.

    Args:
      num_examples: In the training split.
      seed: `[2]` int32: of the run, and the number of the epoch.

    Returns:
      `[num_examples]` int32, a permutation.
    """
    return tf.argsort(tf.random.stateless_uniform([num_examples], seed))


@tf.function
def train_epoch(
    model: tf.Module,
    optimizer: tf.Module,
    examples: Examples,
    seed: tf.Tensor,
    batch_size: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Trains on every example once, in mini-batches of a new order.

    The whole epoch is one graph: examples stay on the device, and Python is not in
    the loop. The last batch is smaller where `batch_size` leaves a remainder.

    Args:
      model: Maps `[B, H * W * C]` float32 to logits `[B, num_classes]`.
      optimizer: Has `apply_gradients(gradients, parameters)`.
      examples: The training split.
      seed: `[2]` int32: of the run, and the number of the epoch.
      batch_size: Examples per step.

    Returns:
      Mean loss and accuracy over the epoch, float64 scalars.
    """
    num_examples = examples.images.shape[0]
    parameters = model.trainable_variables
    order = epoch_order(num_examples, seed)
    loss_sum = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0, tf.int64)
    for start in tf.range(0, num_examples, batch_size):
        batch = order[start : start + batch_size]
        labels = tf.gather(examples.labels, batch)
        inputs = normalise_images(tf.gather(examples.images, batch))
        with tf.GradientTape() as tape:
            logits = model(inputs)
            losses = cross_entropy(labels, logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply_gradients(tape.gradient(loss, parameters), parameters)
        loss_sum += tf.cast(tf.reduce_sum(losses), tf.float64)
        num_correct += count_correct(labels, logits)
    return loss_sum / num_examples, num_correct / num_examples


@tf.function
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
    loss_sum = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0, tf.int64)
    for start in tf.range(0, num_examples, batch_size):
        labels = examples.labels[start : start + batch_size]
        logits = model(normalise_images(examples.images[start : start + batch_size]))
        loss_sum += tf.cast(tf.reduce_sum(cross_entropy(labels, logits)), tf.float64)
        num_correct += count_correct(labels, logits)
    return loss_sum / num_examples, num_correct / num_examples


def train(
    model: tf.Module,
    optimizer: tf.Module,
    train_examples: Examples,
    validation_examples: Examples,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
) -> Iterator[EpochMetrics]:
    """Trains a model, and reports after each epoch.

    Args:
      model: Maps `[B, H * W * C]` float32 to logits `[B, num_classes]`.
      optimizer: Has `apply_gradients(gradients, parameters)`.
      train_examples: The training split.
      validation_examples: The validation split.
      epochs: Passes over the training split.
      batch_size: Examples per step.
      seed: Of the order of the examples.

    Yields:
      The metrics of each epoch.

    Raises:
      InputError: If a loss is not finite.
    """
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        loss, accuracy = train_epoch(
            model, optimizer, train_examples, tf.constant([seed, epoch]), batch_size
        )
        train_loss, train_accuracy = float(loss), float(accuracy)
        seconds = time.perf_counter() - start
        validation_loss, validation_accuracy = map(
            float, evaluate(model, validation_examples)
        )
        if not (math.isfinite(train_loss) and math.isfinite(validation_loss)):
            raise InputError(
                f"training diverged in epoch {epoch}: train_loss = {train_loss}, "
                f"validation_loss = {validation_loss}; try a smaller learning_rate"
            )
        yield EpochMetrics(
            epoch,
            train_loss,
            validation_loss,
            train_accuracy,
            validation_accuracy,
            len(train_examples.labels) / seconds,
        )
