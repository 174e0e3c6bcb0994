"""Training examples of an epoch: resident in memory, or streamed from TFRecords."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from core_mlp.data import tfrecords
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.pipeline.params import TrainParams

# Upper bound of a streamed chunk, which is trained on in one call.
CHUNK_BYTES = 2**23


class Examples(NamedTuple):
    """`[N, H, W, C]` uint8 images and their `[N]` int64 labels, on the device."""

    images: tf.Tensor
    labels: tf.Tensor


# From an epoch, counted from 1, to its examples, in one or more chunks, each with the
# order in which to visit them and a seed, `[2]` int32, for what is drawn on the way.
EpochData = Callable[[int], Iterable[tuple[Examples, tf.Tensor, tf.Tensor]]]


def read_examples(folder: Path, info: SplitInfo) -> Examples:
    """Reads a whole split onto the device."""
    return Examples(*map(tf.constant, tfrecords.read_split(folder, info)))


def epoch_data(folder: Path, info: SplitInfo, p: TrainParams) -> EpochData:
    """Chooses how to supply the training examples, by their size.

    Args:
      folder: The split, from `tfrecords.write_split`.
      info: Its metadata.
      p: The parameters seed, for shuffling; batch_size, as a chunk holds whole batches;
        and memory_budget, in MiB of images: if there are more, they are streamed.
    """
    image_bytes = math.prod(info.image_shape)
    budget = p.memory_budget * 2**20
    if info.num_examples * image_bytes <= budget:
        examples = read_examples(folder, info)
        return lambda epoch: [
            (
                examples,
                epoch_permutation(info.num_examples, [p.seed, epoch]),
                tf.random.fold_in([p.seed, epoch], 0),
            )
        ]
    print(
        f"Streaming {info.num_examples:,} images: they exceed memory_budget = "
        f"{p.memory_budget} MiB"
    )
    num_batches = max(1, min(CHUNK_BYTES, budget // 8) // (image_bytes * p.batch_size))

    def stream(epoch: int) -> Iterator[tuple[Examples, tf.Tensor, tf.Tensor]]:
        chunks = tfrecords.stream_split(
            folder,
            info,
            chunk_size=num_batches * p.batch_size,
            buffer_size=max(1, budget // 2 // image_bytes),
            seed=[p.seed, epoch],
        )
        for number, chunk in enumerate(chunks):
            examples = Examples(*map(tf.constant, chunk))
            chunk_seed = tf.random.fold_in([p.seed, epoch], number)
            yield examples, tf.range(len(examples.labels)), chunk_seed

    return stream


def epoch_permutation(num_examples: int, seed: Sequence[int]) -> tf.Tensor:
    """Draws the order of the examples in one epoch.

    Must be called eagerly: XLA draws other numbers from the same seed.

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


def border_range(folder: Path, info: SplitInfo) -> tuple[float, float]:
    """Returns how bright the border of a split's images is, 0 to 255, save outliers."""
    sample = {"chunk_size": 1000, "buffer_size": 1000, "seed": [0]}
    images, _ = next(tfrecords.stream_split(folder, info, **sample))
    parts = images[:, [0, -1]], images[:, 1:-1, [0, -1]]
    borders = np.hstack([part.reshape(len(images), -1) for part in parts])
    ends = np.quantile(np.median(borders, axis=1), [0.05, 0.95], method="nearest")
    return tuple(ends.tolist())
