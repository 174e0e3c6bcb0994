"""The loss, the compiled epoch, and the loop over epochs.

A model maps `[B, H * W * C]` float32 to `[B, num_classes]` float32 logits; an optimizer
has `apply_gradients(gradients, parameters)`.
"""

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import tensorflow as tf
from tqdm import tqdm

from core_mlp.data.images import normalize_images
from core_mlp.pipeline.stage import InputError
from core_mlp.training.input_pipeline import EpochData, Examples, pad_to_batches

# Images per evaluation step; the result does not depend on it.
EVALUATION_BATCH_SIZE = 1000


class EpochMetrics(NamedTuple):
    """Metrics of one epoch, counted from 1: losses in nats, accuracies in [0, 1].

    Train metrics are means over the epoch's examples, each computed with the weights of
    its own step; validation metrics use the weights at the end of the epoch. The speed
    is that of training alone; in the first epoch it includes compilation.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    train_accuracy: float
    validation_accuracy: float
    images_per_second: float

    def summary(self) -> dict[str, float]:
        """Returns the metrics by their names in metrics/train.json."""
        return {
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            "validation_loss": self.validation_loss,
            "validation_accuracy": self.validation_accuracy,
            # Not epochs, the parameter: `dvc exp show` would prefix both columns.
            "train_epochs": self.epoch,
        }

    def __str__(self) -> str:
        """Returns the metrics as a line of a log."""
        return (
            f"train loss {self.train_loss:.4f}, accuracy {self.train_accuracy:.4f}; "
            f"validation loss {self.validation_loss:.4f}, "
            f"accuracy {self.validation_accuracy:.4f}; "
            f"{self.images_per_second:,.0f} images/s"
        )


def set_up_device() -> str:
    """Makes TensorFlow deterministic; returns the name of the training device."""
    # Without, XLA:CPU copies weights in every step. Read when XLA first compiles.
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
    """Computes the cross-entropy of each example, `-log(softmax(logits)[label])`.

    Args:
      labels: `[B]` int64, the true classes.
      logits: `[B, num_classes]` float32.

    Returns:
      `[B]` float32, in nats.
    """
    # A product, not a gather: the gradient of a gather is a scatter, which adds in no
    # fixed order on a GPU.
    one_hot = tf.one_hot(labels, logits.shape[1], dtype=logits.dtype)
    return -tf.reduce_sum(one_hot * tf.nn.log_softmax(logits), axis=1)


def correct_predictions(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns `[B]` float32: 1 where the largest logit is that of the label, else 0."""
    return tf.cast(tf.equal(tf.argmax(logits, axis=1), labels), tf.float32)


def forward(
    model: tf.Module, examples: Examples, indices: tf.Tensor, weights: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies a model to one batch.

    Args:
      model: The model.
      examples: Images and labels.
      indices: `[B]` int32, the examples of the batch.
      weights: `[B]` float32, 0 for an example that does not count, else 1.

    Returns:
      Losses and correct predictions, each `[B]` float32 and multiplied by `weights`.
    """
    labels = tf.gather(examples.labels, indices)
    logits = model(normalize_images(tf.gather(examples.images, indices)))
    losses = cross_entropy(labels, logits) * weights
    return losses, correct_predictions(labels, logits) * weights


def train_epoch(
    model: tf.Module,
    optimizer: tf.Module,
    examples: Examples,
    order: tf.Tensor,
    batch_size: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Trains on every example once, in mini-batches.

    Must be compiled by `tf.function`; then examples and variables stay on the device,
    and nothing returns to Python before the end.

    Args:
      model: The model.
      optimizer: The optimizer.
      examples: Training examples.
      order: `[num_examples]` int32, a permutation.
      batch_size: Examples per step; the last step has the remainder.

    Returns:
      Sum of the losses and number of correct predictions, float64 scalars; each example
      counts as it was when it was trained on.
    """
    parameters = model.trainable_variables
    indices, weights = pad_to_batches(order, batch_size)
    loss_sum = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0.0, tf.float64)
    for step in tf.range(len(indices)):
        with tf.GradientTape() as tape:
            losses, correct = forward(model, examples, indices[step], weights[step])
            loss = tf.reduce_sum(losses) / tf.reduce_sum(weights[step])
        optimizer.apply_gradients(tape.gradient(loss, parameters), parameters)
        loss_sum += tf.cast(tf.reduce_sum(losses), tf.float64)
        num_correct += tf.cast(tf.reduce_sum(correct), tf.float64)
    return loss_sum, num_correct


def evaluate(
    model: tf.Module, examples: Examples, batch_size: int = EVALUATION_BATCH_SIZE
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the mean loss and the accuracy of a model on a split, float64 scalars."""
    num_examples = examples.images.shape[0]
    indices, weights = pad_to_batches(tf.range(num_examples), batch_size)
    loss_sum = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0.0, tf.float64)
    for step in tf.range(len(indices)):
        losses, correct = forward(model, examples, indices[step], weights[step])
        loss_sum += tf.cast(tf.reduce_sum(losses), tf.float64)
        num_correct += tf.cast(tf.reduce_sum(correct), tf.float64)
    return loss_sum / num_examples, num_correct / num_examples


def show_progress(
    history: Iterable[EpochMetrics], epochs: range
) -> Iterator[EpochMetrics]:
    """Prints each epoch's metrics as they come; adds a progress bar on a terminal."""
    total = epochs.stop - 1
    with tqdm(
        total=total, initial=total - len(epochs), unit="epoch", disable=None
    ) as bar:
        for metrics in history:
            yield metrics
            epoch = f"Epoch {metrics.epoch:>{len(str(total))}}/{total}"
            tqdm.write(f"{epoch}: {metrics}", file=sys.stdout)
            sys.stdout.flush()
            bar.update()


def train(
    model: tf.Module,
    optimizer: tf.Module,
    epoch_data: EpochData,
    validation_examples: Examples,
    epochs: Iterable[int],
    batch_size: int,
) -> Iterator[EpochMetrics]:
    """Trains a model with XLA, and evaluates it after each epoch.

    Args:
      model: The model.
      optimizer: The optimizer.
      epoch_data: From `input_pipeline.epoch_data`.
      validation_examples: The validation split.
      epochs: The epochs to train, counted from 1; a resumed training starts later.
      batch_size: Examples per step.

    Yields:
      The metrics of each epoch.

    Raises:
      InputError: If a loss is not finite.
    """
    compiled_epoch, compiled_evaluation = (
        tf.function(function, jit_compile=True) for function in (train_epoch, evaluate)
    )
    for epoch in epochs:
        start = time.perf_counter()
        num_examples, loss_sum, num_correct = 0, 0.0, 0.0
        for examples, order in epoch_data(epoch):
            sums = compiled_epoch(model, optimizer, examples, order, batch_size)
            num_examples += len(order)
            # Tensors still, so that the next chunk is prepared while this one runs.
            loss_sum, num_correct = loss_sum + sums[0], num_correct + sums[1]
        train = float(loss_sum) / num_examples, float(num_correct) / num_examples
        seconds = time.perf_counter() - start
        validation = tuple(map(float, compiled_evaluation(model, validation_examples)))
        if not math.isfinite(train[0] + validation[0]):
            raise InputError(
                f"training diverged: the loss of epoch {epoch} is not finite; try a "
                "smaller learning_rate"
            )
        losses, accuracies = zip(train, validation, strict=True)
        yield EpochMetrics(epoch, *losses, *accuracies, num_examples / seconds)
