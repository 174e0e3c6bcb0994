"""The objective, one training step, one epoch, and evaluation.

A model maps `[B, H, W, C]` float32 images, 0 to 1, to `[B, num_classes]` float32
logits. An optimizer has `apply_gradients(gradients, parameters)` and, for
`optimizers.Averaging`, `t`, the number of steps taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Self

import numpy as np
import tensorflow as tf

from core_mlp.data.batches import evaluation_batch_size
from core_mlp.data.images import normalize_images
from core_mlp.pipeline.params import TrainParams
from core_mlp.training.augmentation import augment
from core_mlp.training.input_pipeline import Chunk, Examples, pad_to_batches

# From `[B]` int64 labels and `[B, num_classes]` float32 logits to `[B]` float32 losses.
Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
# `augment(images, seed=seed)` returns images of the same shape; they are `[B, H, W, C]`
# float32, and the seed is `[2]` int32.
Augment = Callable[..., tf.Tensor]
# Selects one replica's elements along the last axis of a tensor.
Share = Callable[[tf.Tensor], tf.Tensor]


class Batch(NamedTuple):
    """Examples of a split that are processed together.

    Attributes:
      indices: `[B]` int32, into the examples.
      weights: `[B]` float32, 0 for an example that does not count, else 1.
      seed: `[2]` int32, for random distortions; None if there are none.
    """

    indices: tf.Tensor
    weights: tf.Tensor
    seed: tf.Tensor | None = None

    def part(self, share: Share) -> Self:
        """Returns one replica's part of the batch."""
        return self._replace(indices=share(self.indices), weights=share(self.weights))


class Sums(NamedTuple):
    """Loss and number of correct predictions, summed over examples; scalars."""

    loss: tf.Tensor
    num_correct: tf.Tensor


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


def class_weighted(
    labels: tf.Tensor,
    logits: tf.Tensor,
    *,
    loss: Loss,
    class_weights: Sequence[float],
) -> tf.Tensor:
    """Multiplies the loss of each example by the weight of its class.

    Args:
      labels: `[B]` int64, the true classes.
      logits: `[B, num_classes]` float32.
      loss: The loss of each example.
      class_weights: A weight per class.

    Returns:
      `[B]` float32.
    """
    weights = tf.gather(tf.constant(class_weights, tf.float32), labels)
    return loss(labels, logits) * weights


def balanced_weights(counts: np.ndarray) -> list[float]:
    """Computes weights with which each class counts the same in the loss.

    The weight of a class is the mean number of examples of a class, divided by its own.
    The mean weight of all examples is 1. A class without examples gets the weight 0.

    >>> balanced_weights(np.array([30, 10, 0]))
    [0.6666666666666666, 2.0, 0.0]

    Args:
      counts: `[num_classes]` integers, the number of examples of each class.

    References:
      King and Zeng, 2001: Logistic regression in rare events data.
    """
    mean = float(np.mean(counts[counts > 0]))
    return [mean / count if count else 0.0 for count in counts.tolist()]


def correct_predictions(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Returns `[B]` float32: 1 where the largest logit is that of the label, else 0."""
    return tf.cast(tf.equal(tf.argmax(logits, axis=1), labels), tf.float32)


@dataclass(frozen=True)
class Objective:
    """What is computed on a batch: the loss of images that may be distorted first.

    Attributes:
      loss: Loss of each example.
      augment: Distorts the images at random; None leaves them as they are.
    """

    loss: Loss = cross_entropy
    augment: Augment | None = None

    @classmethod
    def of(cls, p: TrainParams, class_weights: Sequence[float] | None = None) -> Self:
        """Returns what training minimizes.

        Args:
          p: Parameters of train.
          class_weights: A weight per class; None if all examples count the same.
        """
        loss = cross_entropy
        if class_weights:
            loss = partial(class_weighted, loss=loss, class_weights=class_weights)
        distort = None
        if p.augmentation.is_on:
            distort = partial(augment, **p.augmentation.model_dump())
        return cls(loss=loss, augment=distort)

    def __call__(
        self, model: tf.Module, examples: Examples, batch: Batch
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Applies a model to one batch.

        Returns:
          Losses and correct predictions, each `[B]` float32 and multiplied by the
          batch's weights.
        """
        labels = tf.gather(examples.labels, batch.indices)
        images = normalize_images(tf.gather(examples.images, batch.indices))
        if self.augment:
            images = self.augment(images, seed=batch.seed)
        logits = model(images)
        losses = self.loss(labels, logits) * batch.weights
        return losses, correct_predictions(labels, logits) * batch.weights


def compute_gradients(
    model: tf.Module,
    objective: Objective,
    examples: Examples,
    batch: Batch,
    *,
    share: Share = tf.identity,
) -> tuple[list[tf.Tensor], Sums]:
    """Computes the gradients of a batch's mean loss, and the batch's sums.

    If `share` selects one replica's part of the batch, the results are that replica's
    contribution.
    """
    # Of the whole batch: the contributions of all replicas add up to its mean.
    num_examples = tf.reduce_sum(batch.weights)
    with tf.GradientTape() as tape:
        losses, correct = objective(model, examples, batch.part(share))
        loss = tf.reduce_sum(losses) / num_examples
    gradients = tape.gradient(loss, model.trainable_variables)
    return gradients, Sums(tf.reduce_sum(losses), tf.reduce_sum(correct))


def take_step(
    model: tf.Module,
    optimizer: tf.Module,
    objective: Objective,
    examples: Examples,
    batch: Batch,
) -> Sums:
    """Trains on one batch."""
    gradients, sums = compute_gradients(model, objective, examples, batch)
    optimizer.apply_gradients(gradients, model.trainable_variables)
    return sums


def train_epoch(
    model: tf.Module,
    optimizer: tf.Module,
    objective: Objective,
    chunk: Chunk,
    *,
    batch_size: int,
    take_step: Callable[..., Sums] = take_step,
) -> Sums:
    """Trains on every example of a chunk once, in mini-batches.

    Must be compiled by `tf.function`; then examples and variables stay on the device,
    and control returns to Python only at the end.

    Args:
      model: What is trained.
      optimizer: Updates it.
      objective: What is minimized.
      chunk: Training examples, and the order in which to visit them.
      batch_size: Examples per step; the last step has the remainder.
      take_step: Trains on one batch.

    Returns:
      Sums over the examples, float64; each example contributes what the step that
      trained on it computed.
    """
    indices, weights = pad_to_batches(chunk.order, batch_size)
    loss = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0.0, tf.float64)
    for step in tf.range(len(indices)):
        seed = tf.random.fold_in(chunk.seed, step) if objective.augment else None
        batch = Batch(indices[step], weights[step], seed)
        sums = take_step(model, optimizer, objective, chunk.examples, batch)
        loss += tf.cast(sums.loss, tf.float64)
        num_correct += tf.cast(sums.num_correct, tf.float64)
    return Sums(loss, num_correct)


def evaluate(
    model: tf.Module,
    examples: Examples,
    *,
    batch_size: int | None = None,
    share: Share = tf.identity,
) -> Sums:
    """Computes cross-entropy and correct predictions over a split, as float64 sums.

    Always uses this loss and undistorted images, so that settings can be compared. If
    `share` selects one replica's part of each batch, the sums are its contribution.
    Batches are of `evaluation_batch_size` by default.
    """
    objective = Objective()
    num_examples, *image_shape = examples.images.shape
    batch_size = batch_size or evaluation_batch_size(image_shape)
    indices, weights = pad_to_batches(tf.range(num_examples), batch_size)
    batches = Batch(indices, weights).part(share)
    loss = tf.constant(0.0, tf.float64)
    num_correct = tf.constant(0.0, tf.float64)
    for step in tf.range(len(batches.indices)):
        batch = Batch(batches.indices[step], batches.weights[step])
        losses, correct = objective(model, examples, batch)
        loss += tf.cast(tf.reduce_sum(losses), tf.float64)
        num_correct += tf.cast(tf.reduce_sum(correct), tf.float64)
    return Sums(loss, num_correct)


class Compiled(NamedTuple):
    """`train_epoch` and `evaluate`, compiled for the devices that train."""

    train_epoch: Callable[..., Sums]
    evaluate: Callable[..., Sums]


def compile_functions() -> Compiled:
    """Compiles the functions of an epoch with XLA, for one device."""
    return Compiled(
        train_epoch=tf.function(train_epoch, jit_compile=True),
        evaluate=tf.function(evaluate, jit_compile=True),
    )
