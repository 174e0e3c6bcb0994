"""The loss, the compiled epoch, and the loop over epochs.

A model maps `[B, H * W * C]` float32 to `[B, num_classes]` float32 logits; an optimizer
has `apply_gradients(gradients, parameters)`.
"""

import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from core_mlp.data.images import normalize_images
from core_mlp.pipeline.params import TrainParams
from core_mlp.pipeline.stage import InputError
from core_mlp.training import augmentation
from core_mlp.training.input_pipeline import EpochData, Examples, pad_to_batches

# From images, `[B, H, W, C]` float32, and seed=, `[2]` int32, to other images.
Augment = Callable[..., tf.Tensor]
# `train_epoch` and `evaluate`, compiled.
Functions = tuple[Callable, Callable]
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

    @classmethod
    def from_rows(cls, rows: np.ndarray) -> list[Self]:
        """Returns the metrics of epochs from an array with a row for each."""
        return [cls(int(epoch), *others) for epoch, *others in rows.tolist()]

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


class Models(NamedTuple):
    """The same network in three roles, which may be one and the same.

    Attributes:
      trained: Gets the optimizer's steps.
      evaluated: Has the averages of the trained weights, if they are averaged.
      kept: Has the evaluated weights of the best epoch, with patience.
    """

    trained: tf.Module
    evaluated: tf.Module
    kept: tf.Module

    @classmethod
    def build(cls, build_model: Callable[[], tf.Module], p: TrainParams) -> Self:
        """Builds as many models as the parameters need."""
        trained = build_model()
        evaluated = build_model() if p.ema_decay else trained
        return cls(trained, evaluated, build_model() if p.patience else evaluated)


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
    model: tf.Module,
    examples: Examples,
    indices: tf.Tensor,
    weights: tf.Tensor,
    distort: Callable[[tf.Tensor], tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies a model to one batch.

    Args:
      model: Maps images to logits.
      examples: Images and labels.
      indices: `[B]` int32, the examples of the batch.
      weights: `[B]` float32, 0 for an example that does not count, else 1.
      distort: Changes images, `[B, H, W, C]` float32, 0 to 1.

    Returns:
      Losses and correct predictions, each `[B]` float32 and multiplied by `weights`.
    """
    labels = tf.gather(examples.labels, indices)
    images = tf.gather(examples.images, indices)
    inputs = normalize_images(images)
    if distort:
        inputs = tf.reshape(distort(tf.reshape(inputs, images.shape)), inputs.shape)
    logits = model(inputs)
    losses = cross_entropy(labels, logits) * weights
    return losses, correct_predictions(labels, logits) * weights


def compute_gradients(
    model: tf.Module,
    examples: Examples,
    indices: tf.Tensor,
    weights: tf.Tensor,
    seed: tf.Tensor | None,
    augment: Augment | None,
    share: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
    """Computes gradients of a batch's mean loss, its sum, and the correct predictions.

    Or one replica's contribution to them: `share` selects its part of the batch.
    """
    num_examples = tf.reduce_sum(weights)
    distort = augment and partial(augment, seed=seed)
    with tf.GradientTape() as tape:
        batch = share(indices), share(weights)
        losses, correct = forward(model, examples, *batch, distort)
        loss = tf.reduce_sum(losses) / num_examples
    gradients = tape.gradient(loss, model.trainable_variables)
    return gradients, tf.reduce_sum(losses), tf.reduce_sum(correct)


def take_step(model: tf.Module, optimizer: tf.Module, *batch: Any) -> list[tf.Tensor]:
    """Trains on one batch; see `compute_gradients`."""
    gradients, *sums = compute_gradients(model, *batch)
    optimizer.apply_gradients(gradients, model.trainable_variables)
    return sums


def train_epoch(
    model: tf.Module,
    optimizer: tf.Module,
    examples: Examples,
    order: tf.Tensor,
    batch_size: int,
    seed: tf.Tensor | None = None,
    augment: Augment | None = None,
    take_step: Callable = take_step,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Trains on every example once, in mini-batches.

    Must be compiled by `tf.function`; then examples and variables stay on the device,
    and nothing returns to Python before the end.

    Args:
      model: What is trained.
      optimizer: Updates it.
      examples: Training examples.
      order: `[num_examples]` int32, a permutation.
      batch_size: Examples per step; the last step has the remainder.
      seed: `[2]` int32, for augmentation.
      augment: Distorts the images of a step at random; None for the images as they are.
      take_step: Trains on one batch.

    Returns:
      Sum of the losses and number of correct predictions, float64 scalars; each example
      counts as it was when it was trained on.
    """
    indices, weights = pad_to_batches(order, batch_size)
    loss_sum = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0.0, tf.float64)
    for step in tf.range(len(indices)):
        step_seed = augment and tf.random.fold_in(seed, step)
        batch = examples, indices[step], weights[step], step_seed, augment
        sums = take_step(model, optimizer, *batch)
        loss_sum += tf.cast(sums[0], tf.float64)
        num_correct += tf.cast(sums[1], tf.float64)
    return loss_sum, num_correct


def evaluate(
    model: tf.Module,
    examples: Examples,
    batch_size: int = EVALUATION_BATCH_SIZE,
    share: Callable[[tf.Tensor], tf.Tensor] = tf.identity,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the mean loss and the accuracy of a model on a split, float64 scalars.

    Or one replica's contribution to them: `share` selects its part of all batches.
    """
    num_examples = examples.images.shape[0]
    batches = pad_to_batches(tf.range(num_examples), batch_size)
    indices, weights = map(share, batches)
    loss_sum = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0.0, tf.float64)
    for step in tf.range(len(indices)):
        losses, correct = forward(model, examples, indices[step], weights[step])
        loss_sum += tf.cast(tf.reduce_sum(losses), tf.float64)
        num_correct += tf.cast(tf.reduce_sum(correct), tf.float64)
    return loss_sum / num_examples, num_correct / num_examples


def show_progress(
    training: Iterable[EpochMetrics], num_trained: int, num_epochs: int
) -> Iterator[EpochMetrics]:
    """Prints each epoch's metrics as they come; adds a progress bar on a terminal."""
    with tqdm(total=num_epochs, initial=num_trained, unit="epoch", disable=None) as bar:
        for metrics in training:
            yield metrics
            epoch = f"Epoch {metrics.epoch:>{len(str(num_epochs))}}/{num_epochs}"
            tqdm.write(f"{epoch}: {metrics}", file=sys.stdout)
            sys.stdout.flush()
            bar.update()


def kept_epoch(history: Sequence[EpochMetrics], patience: int) -> EpochMetrics:
    """Returns the epoch whose weights are kept: the last, or with patience the best.

    The best is the first of those with the highest accuracy on validation.
    """
    if not patience:
        return history[-1]
    return max(history, key=lambda metrics: metrics.validation_accuracy)


def train(
    models: Models,
    optimizer: tf.Module,
    epoch_data: EpochData,
    validation_examples: Examples,
    history: list[EpochMetrics],
    p: TrainParams,
    functions: Functions | None = None,
) -> Iterator[EpochMetrics]:
    """Trains a model with XLA, and evaluates it after each epoch.

    Args:
      models: What is trained, evaluated and kept.
      optimizer: Updates `models.trained`.
      epoch_data: Supplies the training examples.
      validation_examples: The validation split.
      history: The metrics of the epochs so far; new ones are appended.
      p: The parameters epochs, batch_size, patience and augmentation.
      functions: Of several devices, from `distribution.compile_functions`.

    Yields:
      The metrics of each epoch.

    Raises:
      InputError: If a loss is not finite.
    """
    compiled_epoch, compiled_evaluation = functions or (
        tf.function(function, jit_compile=True) for function in (train_epoch, evaluate)
    )
    augment = None
    if p.augmentation.is_on:
        augment = partial(augmentation.augment, **p.augmentation.model_dump())
    for epoch in range(len(history) + 1, p.epochs + 1):
        if p.patience and history:
            num_since_best = epoch - 1 - kept_epoch(history, p.patience).epoch
            if num_since_best >= p.patience:
                return
        start = time.perf_counter()
        num_examples, loss_sum, num_correct = 0, 0.0, 0.0
        for examples, order, seed in epoch_data(epoch):
            sums = compiled_epoch(
                models.trained, optimizer, examples, order, p.batch_size, seed, augment
            )
            num_examples += len(order)
            # Tensors still, so that the next chunk is prepared while this one runs.
            loss_sum, num_correct = loss_sum + sums[0], num_correct + sums[1]
        train = float(loss_sum) / num_examples, float(num_correct) / num_examples
        seconds = time.perf_counter() - start
        results = compiled_evaluation(models.evaluated, validation_examples)
        validation = tuple(map(float, results))
        if not math.isfinite(train[0] + validation[0]):
            raise InputError(
                f"training diverged: the loss of epoch {epoch} is not finite; try a "
                "smaller learning_rate"
            )
        losses, accuracies = zip(train, validation, strict=True)
        metrics = EpochMetrics(epoch, *losses, *accuracies, num_examples / seconds)
        history.append(metrics)
        if p.patience and kept_epoch(history, p.patience) is metrics:
            pairs = zip(models.kept.variables, models.evaluated.variables, strict=True)
            for kept, evaluated in pairs:
                kept.assign(evaluated)
        yield metrics
