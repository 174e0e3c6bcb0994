"""TFRecords of images: the schema, and the files of a split."""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from core_mlp.errors import InputError

# Large enough to be read at the disk's speed, small enough to be read in parallel.
SHARD_BYTES = 8 * 2**20
# Of a stream, read at a time; this and the next are part of the order of the examples.
NUM_PARALLEL_SHARDS = 4
# Of a stream, taken from one shard before the next: one by one costs twice as much.
BLOCK_LENGTH = 16
# Parsing a batch at once is several times faster than example by example.
PARSE_BATCH_SIZE = 1024

FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def encode_example(image: np.ndarray, label: int) -> bytes:
    """Encodes one image and its label.

    Args:
      image: `[H, W, C]` uint8, 0 to 255.
      label: Index of the class.

    Returns:
      A serialised `tf.train.Example`; the same input gives the same bytes.
    """
    image_feature = tf.train.Feature(
        bytes_list=tf.train.BytesList(value=[image.tobytes()])
    )
    label_feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
    features = tf.train.Features(
        feature={"image": image_feature, "label": label_feature}
    )
    return tf.train.Example(features=features).SerializeToString(deterministic=True)


def parse_examples(
    serialized: tf.Tensor, image_shape: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of encoded examples.

    Args:
      serialized: `[B]` strings, each from `encode_example`.
      image_shape: Height, width and channels.

    Returns:
      `[B, H, W, C]` uint8 images and `[B]` int64 labels.

    Raises:
      tf.errors.InvalidArgumentError: If an example is of another schema or shape.
    """
    parsed = tf.io.parse_example(serialized, FEATURES)
    pixels = tf.io.decode_raw(parsed["image"], tf.uint8)
    # Neither dimension is inferred: bytes of another image shape are an error.
    shape = [tf.shape(serialized)[0], *image_shape]
    return tf.reshape(pixels, shape), parsed["label"]


def write_split(
    folder: Path, split: str, images: np.ndarray, labels: np.ndarray
) -> None:
    """Writes a split as `SPLIT-00000-of-00005.tfrecord` and so on.

    Args:
      folder: An existing folder.
      split: Name of the split.
      images: `[N, H, W, C]` uint8, 0 to 255; may be memory-mapped.
      labels: `[N]` int64.
    """
    num_shards = math.ceil(images.nbytes / SHARD_BYTES)
    bounds = np.linspace(0, len(images), num_shards + 1).astype(int)
    bar = tqdm(bounds, desc=split, unit="shard", total=num_shards, disable=None)
    for shard, (start, stop) in enumerate(pairwise(bar)):
        path = folder / f"{split}-{shard:05d}-of-{num_shards:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for image, label in zip(
                images[start:stop], labels[start:stop], strict=True
            ):
                writer.write(encode_example(image, label))


def read_split(
    folder: Path,
    split: str,
    *,
    num_examples: int,
    image_shape: Sequence[int],
    num_classes: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a whole split into memory, in the order in which it was written.

    Args:
      folder: Where `write_split` has written to.
      split: Name of the split.
      num_examples: That the split must have.
      image_shape: Height, width and channels that each image must have.
      num_classes: That each label must be below.

    Returns:
      `[num_examples, H, W, C]` uint8 images and `[num_examples]` int64 labels.

    Raises:
      InputError: If a file is missing, damaged or of another dataset.
    """
    paths = _shard_paths(folder, split)
    # Before so many are made room for.
    if num_examples * math.prod(image_shape) > sum(p.stat().st_size for p in paths):
        raise InputError(f"{folder}: too little for {num_examples} examples of {split}")
    images = np.empty([num_examples, *image_shape], np.uint8)
    labels = np.empty([num_examples], np.int64)
    end = 0
    for path in paths:
        for image_batch, label_batch in _read_shard(path, image_shape, num_classes):
            start, end = end, end + len(label_batch)
            if end > num_examples:
                raise InputError(
                    f"{path}: more than {num_examples} examples of {split}"
                )
            images[start:end], labels[start:end] = image_batch, label_batch
    if end < num_examples:
        raise InputError(
            f"{folder}: {end} examples of {split}, expected {num_examples}"
        )
    return images, labels


def stream_split(
    folder: Path,
    split: str,
    *,
    num_examples: int,
    image_shape: Sequence[int],
    num_classes: int,
    chunk_size: int,
    buffer_size: int,
    seed: Sequence[int],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads a split chunk by chunk, shuffled, with a bounded use of memory.

    The shards are taken in a random order, several at a time, and their examples drawn
    from a buffer at random. The same arguments give the same order.

    Args:
      folder: Where `write_split` has written to.
      split: Name of the split.
      num_examples: That the split must have.
      image_shape: Height, width and channels that each image must have.
      num_classes: That each label must be below.
      chunk_size: Examples of each chunk; the last may have fewer.
      buffer_size: Examples to draw from.
      seed: Non-negative integers, such as the run's and the number of the epoch.

    Yields:
      `[chunk_size, H, W, C]` uint8 images and `[chunk_size]` int64 labels.

    Raises:
      InputError: If a file is missing, damaged or of another dataset.
    """
    paths = [str(path) for path in _shard_paths(folder, split)]
    tf_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    dataset = (
        tf.data.Dataset.from_tensor_slices(paths)
        .shuffle(len(paths), seed=tf_seed)
        .interleave(
            tf.data.TFRecordDataset,
            cycle_length=NUM_PARALLEL_SHARDS,
            block_length=BLOCK_LENGTH,
            num_parallel_calls=NUM_PARALLEL_SHARDS,
            deterministic=True,
        )
        .shuffle(buffer_size, seed=tf_seed)
        .batch(chunk_size)
        .map(lambda serialized: parse_examples(serialized, image_shape))
        .prefetch(1)
    )
    # An iterator ends by waiting for the thread that tunes it, which by then sleeps for
    # seconds at a time.
    options = tf.data.Options()
    options.autotune.enabled = False
    dataset = dataset.with_options(options)
    end = 0
    for images, labels in _checked(dataset, folder / split, image_shape, num_classes):
        end += len(labels)
        yield images, labels
    if end != num_examples:
        raise InputError(
            f"{folder}: {end} examples of {split}, expected {num_examples}"
        )


def _read_shard(
    path: Path, image_shape: Sequence[int], num_classes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the images and labels of one file in batches."""
    dataset = (
        tf.data.TFRecordDataset(str(path))
        .batch(PARSE_BATCH_SIZE)
        .map(lambda serialized: parse_examples(serialized, image_shape))
    )
    yield from _checked(dataset, path, image_shape, num_classes)


def _checked(
    dataset: tf.data.Dataset, path: Path, image_shape: Sequence[int], num_classes: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of images and labels, or raises an InputError about `path`."""
    try:
        for images, labels in dataset.as_numpy_iterator():
            if labels.min() < 0 or labels.max() >= num_classes:
                raise InputError(f"{path}: a label is outside 0 to {num_classes - 1}")
            yield images, labels
    except tf.errors.OpError as error:
        # Without the names that TensorFlow gives to its nodes.
        problem = re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", error.message.splitlines()[0])
        raise InputError(
            f"{path}: damaged, or not of images {list(image_shape)}: {problem}"
        ) from error


def _shard_paths(folder: Path, split: str) -> list[Path]:
    """Returns the shards of a split in their order, all of them."""
    paths = sorted(folder.glob(f"{split}-*-of-*.tfrecord"))
    expected = [
        folder / f"{split}-{shard:05d}-of-{len(paths):05d}.tfrecord"
        for shard in range(len(paths))
    ]
    if not paths or paths != expected:
        names = ", ".join(path.name for path in paths) or "none"
        raise InputError(f"{folder}: not all shards of {split} are there, but {names}")
    return paths
