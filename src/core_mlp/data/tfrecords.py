"""TFRecords: the schema of an example, and the files of a split."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from core_mlp.pipeline.metadata import SplitInfo

# Size of a shard: large enough to be read at the disk's speed, small enough to be read
# in parallel.
SHARD_BYTES = 8 * 2**20
# When streaming: shards read at a time, and examples taken from one before the next
# (one by one costs twice as much). Both determine the order of the examples.
NUM_PARALLEL_SHARDS = 4
BLOCK_LENGTH = 16
# Parsing a batch at once is several times faster than example by example.
PARSE_BATCH_SIZE = 1024

FEATURES = {
    "image": tf.io.FixedLenFeature([], tf.string),
    "label": tf.io.FixedLenFeature([], tf.int64),
}
# The feature "file": only examples of a folder of images have it.
FILE_FEATURE = tf.io.FixedLenFeature([], tf.string, default_value="")


def encode_example(image: np.ndarray, label: int, file: bytes | None = None) -> bytes:
    """Serializes an image, `[H, W, C]` uint8, and its label as a `tf.train.Example`.

    Equal inputs give equal bytes.

    Args:
      image: The image.
      label: Its label.
      file: Path of its file, if it has one.
    """
    example = tf.train.Example()
    features = example.features.feature
    if file is not None:
        features["file"].bytes_list.value.append(file)
    features["image"].bytes_list.value.append(image.tobytes())
    features["label"].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


def parse_examples(
    serialized: tf.Tensor, image_shape: Sequence[int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes a batch of serialized examples, `[B]` strings.

    Returns:
      `[B, H, W, C]` uint8 images and `[B]` int64 labels.

    Raises:
      tf.errors.InvalidArgumentError: If an example has another schema or shape.
    """
    parsed = tf.io.parse_example(serialized, FEATURES)
    pixels = tf.io.decode_raw(parsed["image"], tf.uint8)
    # No dimension is inferred, so that images of another shape are an error.
    shape = [tf.shape(serialized)[0], *image_shape]
    return tf.reshape(pixels, shape), parsed["label"]


def write_split(
    folder: Path,
    info: SplitInfo,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    files: np.ndarray | None = None,
    indices: np.ndarray | None = None,
) -> None:
    """Writes a split as `SPLIT-00000-of-00005.tfrecord` and so on, and info.json.

    Args:
      folder: The folder to create, named after the split.
      info: Metadata of the dataset; number of examples and digests are set here.
      images: `[N, H, W, C]` uint8, 0 to 255; may be memory-mapped.
      labels: `[N]` int64.
      files: `[N]` bytes, paths of the images' files; None if there are none.
      indices: `[M]` integers, the examples to write; None for all.
    """
    indices = np.arange(len(images)) if indices is None else indices
    records = (
        encode_example(
            images[index], labels[index], None if files is None else files[index]
        )
        for index in indices
    )
    write_records(folder, info, records, num_examples=len(indices))


def write_records(
    folder: Path, info: SplitInfo, records: Iterable[bytes], *, num_examples: int
) -> None:
    """Writes a split of examples that are serialized already; see `write_split`.

    Args:
      folder: The folder to create, named after the split.
      info: Metadata of the dataset; number of examples and digests are set here.
      records: From `encode_example`.
      num_examples: How many records there are.
    """
    folder.mkdir()
    records = iter(records)
    num_bytes = num_examples * math.prod(info.image_shape)
    num_shards = math.ceil(num_bytes / SHARD_BYTES)
    bounds = np.linspace(0, num_examples, num_shards + 1).astype(int)
    bar = tqdm(bounds, desc=folder.name, unit="shard", total=num_shards, disable=None)
    for shard, (start, stop) in enumerate(pairwise(bar)):
        path = folder / f"{folder.name}-{shard:05d}-of-{num_shards:05d}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in islice(records, stop - start):
                writer.write(record)
    info.model_copy(update={"num_examples": num_examples}).write_split(folder)


def read_split(
    folder: Path, info: SplitInfo, *, count: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Reads a split into memory, in the order in which it was written.

    Args:
      folder: From `write_split`.
      info: Its metadata.
      count: How many examples to read, from the start; None for all.

    Returns:
      `[N, H, W, C]` uint8 images and `[N]` int64 labels.
    """
    num_examples = info.num_examples if count is None else min(count, info.num_examples)
    images = np.empty([num_examples, *info.image_shape], np.uint8)
    labels = np.empty([num_examples], np.int64)
    dataset = (
        tf.data.TFRecordDataset(_shard_paths(folder, info))
        .take(num_examples)
        .batch(PARSE_BATCH_SIZE)
        .map(lambda serialized: parse_examples(serialized, info.image_shape))
    )
    end = 0
    for image_batch, label_batch in dataset.as_numpy_iterator():
        start, end = end, end + len(label_batch)
        images[start:end] = image_batch
        labels[start:end] = label_batch
    return images, labels


def count_labels(folder: Path, info: SplitInfo) -> np.ndarray:
    """Counts the examples of each class in a split, with bounded memory.

    Args:
      folder: From `write_split`.
      info: Its metadata.

    Returns:
      `[num_classes]` int64.
    """
    counts = np.zeros(len(info.class_names), np.int64)
    for labels in _read_feature(folder, info, "label", FEATURES["label"]):
        counts += np.bincount(labels, minlength=len(counts))
    return counts


def read_files(folder: Path, info: SplitInfo) -> list[str] | None:
    """Reads the paths of a split's files, in the order of `read_split`.

    Args:
      folder: From `write_split`.
      info: Its metadata.

    Returns:
      A path in the dataset's folder for each example; bytes that are not UTF-8 are
      surrogates, as in `os.listdir`. None if the images have no files.
    """
    files = []
    for batch in _read_feature(folder, info, "file", FILE_FEATURE):
        if not all(batch):
            return None
        files += map(os.fsdecode, batch)
    return files


def stream_split(
    folder: Path,
    info: SplitInfo,
    *,
    chunk_size: int,
    buffer_size: int,
    seed: Sequence[int],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads a split in chunks, shuffled, with bounded memory.

    Shards are read in random order, several at a time, and their examples pass through
    a shuffle buffer. The same arguments give the same order.

    Args:
      folder: From `write_split`.
      info: Its metadata.
      chunk_size: Examples per chunk; the last chunk may have fewer.
      buffer_size: Examples in the shuffle buffer.
      seed: Non-negative integers, such as the run's seed and the epoch.

    Yields:
      `[chunk_size, H, W, C]` uint8 images and `[chunk_size]` int64 labels.
    """
    paths = _shard_paths(folder, info)
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
        .map(lambda serialized: parse_examples(serialized, info.image_shape))
        .prefetch(1)
    )
    # Closing an iterator waits for its autotuning thread, which sleeps for seconds.
    options = tf.data.Options()
    options.autotune.enabled = False
    yield from dataset.with_options(options).as_numpy_iterator()


def _read_feature(
    folder: Path, info: SplitInfo, name: str, feature: tf.io.FixedLenFeature
) -> Iterator[np.ndarray]:
    """Yields one feature of all examples, batch by batch, `[B]`."""
    dataset = (
        tf.data.TFRecordDataset(_shard_paths(folder, info))
        .batch(PARSE_BATCH_SIZE)
        .map(lambda serialized: tf.io.parse_example(serialized, {name: feature})[name])
    )
    return dataset.as_numpy_iterator()


def _shard_paths(folder: Path, info: SplitInfo) -> list[str]:
    """Returns the shards of a split in their order."""
    return [str(folder / name) for name in sorted(info.sha256)]
