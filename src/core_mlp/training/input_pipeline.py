"""Training examples of an epoch: resident in memory, or streamed from TFRecords."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from core_mlp.data import tfrecords
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.pipeline.params import TrainParams

# Upper bound of a streamed chunk, on which one call trains.
CHUNK_BYTES = 2**23


class Examples(NamedTuple):
    """`[N, H, W, C]` uint8 images and their `[N]` int64 labels, on the device."""

    images: tf.Tensor
    labels: tf.Tensor


class Chunk(NamedTuple):
    """Training examples that one call of `train_epoch` visits.

    Attributes:
      examples: The examples, on the device.
      order: `[N]` int32, the order in which to visit them.
      seed: `[2]` int32, for the random draws in this chunk.
    """

    examples: Examples
    order: tf.Tensor
    seed: tf.Tensor


# From an epoch, counted from 1, to its examples, in one or more chunks.
EpochData = Callable[[int], Iterable[Chunk]]


def read_examples(folder: Path, info: SplitInfo) -> Examples:
    """Reads a whole split onto the device."""
    images, labels = tfrecords.read_split(folder, info)
    return Examples(tf.constant(images), tf.constant(labels))


def epoch_data(folder: Path, info: SplitInfo, p: TrainParams) -> EpochData:
    """Chooses how to supply the training examples, by their size.

    Args:
      folder: The split, from `tfrecords.write_split`.
      info: Its metadata.
      p: The parameters seed, for shuffling; batch_size, as a chunk holds whole batches;
        and memory_budget, in MiB of images: a larger split is streamed.
    """
    if info.num_examples * math.prod(info.image_shape) <= p.memory_budget * 2**20:
        return _resident_epochs(read_examples(folder, info), p.seed)
    print(
        f"Streaming {info.num_examples:,} images: they exceed memory_budget = "
        f"{p.memory_budget} MiB"
    )
    return _streamed_epochs(folder, info, p)


def _resident_epochs(examples: Examples, run_seed: int) -> EpochData:
    """Returns epochs of examples that stay on the device, as one chunk each."""

    def epoch_chunks(epoch: int) -> list[Chunk]:
        seed = [run_seed, epoch]
        order = epoch_permutation(len(examples.labels), seed)
        return [Chunk(examples, order, tf.random.fold_in(seed, 0))]

    return epoch_chunks


def _streamed_epochs(folder: Path, info: SplitInfo, p: TrainParams) -> EpochData:
    """Returns epochs of examples that are read from disk, chunk by chunk."""
    image_bytes = math.prod(info.image_shape)
    budget = p.memory_budget * 2**20
    chunk_bytes = min(CHUNK_BYTES, budget // 8)
    num_batches = max(1, chunk_bytes // (image_bytes * p.batch_size))

    def epoch_chunks(epoch: int) -> Iterator[Chunk]:
        seed = [p.seed, epoch]
        arrays = tfrecords.stream_split(
            folder,
            info,
            chunk_size=num_batches * p.batch_size,
            buffer_size=max(1, budget // 2 // image_bytes),
            seed=seed,
        )
        for number, (images, labels) in enumerate(arrays):
            yield Chunk(
                examples=Examples(tf.constant(images), tf.constant(labels)),
                order=tf.range(len(labels)),  # The stream is shuffled.
                seed=tf.random.fold_in(seed, number),
            )

    return epoch_chunks


def epoch_permutation(num_examples: int, seed: Sequence[int]) -> tf.Tensor:
    """Draws the order of the examples in one epoch.

    Must be called eagerly: XLA draws different numbers from the same seed.

    Args:
      num_examples: Number of training examples.
      seed: The run's seed and the epoch.

    Returns:
      `[num_examples]` int32, a permutation.
    """
    return tf.argsort(tf.random.stateless_uniform([num_examples], seed), stable=True)


def pad_to_batches(order: tf.Tensor, batch_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Splits an order into batches of equal size, as XLA's static shapes require.

    >>> indices, weights = pad_to_batches(tf.constant([2, 0, 1]), batch_size=2)
    >>> indices.numpy().tolist(), weights.numpy().tolist()
    ([[2, 0], [1, 0]], [[1.0, 1.0], [1.0, 0.0]])

    Returns:
      `[num_batches, batch_size]` int32 indices and float32 weights. A weight is 1, or 0
      where the last batch is padded with an example that does not count.
    """
    num_examples = order.shape[0]
    batch_size = min(batch_size, num_examples)
    num_batches = math.ceil(num_examples / batch_size)
    padding = [[0, num_batches * batch_size - num_examples]]
    return tuple(
        tf.reshape(tf.pad(values, padding), [num_batches, batch_size])
        for values in (order, tf.ones([num_examples]))
    )
