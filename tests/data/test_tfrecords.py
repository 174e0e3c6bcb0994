"""TFRecords: encoded, written, read, and refused if another shape or schema."""

import os

import numpy as np
import pytest
import tensorflow as tf

from core_mlp.data import tfrecords
from core_mlp.pipeline.metadata import SplitInfo

SHAPE = (3, 2, 1)
NUM_CLASSES = 10


def random_split(num_examples=50, shape=SHAPE):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [num_examples, *shape], np.uint8)
    return images, rng.integers(0, NUM_CLASSES, num_examples)


INFO = SplitInfo(
    dataset="noise",
    version="1.0.0",
    image_shape=SHAPE,
    class_names=tuple(map(str, range(NUM_CLASSES))),
    num_examples=1,
)


@pytest.fixture
def split(tmp_path, monkeypatch):
    """A split of 50 examples in three files."""
    monkeypatch.setattr(tfrecords, "SHARD_BYTES", 120)
    monkeypatch.setattr(tfrecords, "BLOCK_LENGTH", 2)
    tfrecords.write_split(tmp_path / "test", INFO, *random_split())
    return tmp_path / "test"


def test_parse_undoes_encode_eagerly_and_in_tf_data():
    images, labels = random_split()
    serialized = [
        tfrecords.encode_example(image, label)
        for image, label in zip(images, labels, strict=True)
    ]
    dataset = tf.data.Dataset.from_tensors(serialized).map(
        lambda batch: tfrecords.parse_examples(batch, SHAPE)
    )

    for parsed in (tfrecords.parse_examples(serialized, SHAPE), next(iter(dataset))):
        np.testing.assert_array_equal(parsed[0], images)
        np.testing.assert_array_equal(parsed[1], labels)
        assert [tensor.dtype for tensor in parsed] == [tf.uint8, tf.int64]


def test_an_example_has_the_same_bytes_in_every_process():
    image = np.arange(6, dtype=np.uint8).reshape(SHAPE)

    # Features {feature {key: "image" value: bytes} feature {key: "label" value: 7}}
    assert tfrecords.encode_example(image, 7) == (
        b"\x0a\x25"
        b"\x0a\x13\x0a\x05image\x12\x0a\x0a\x08\x0a\x06\x00\x01\x02\x03\x04\x05"
        b"\x0a\x0e\x0a\x05label\x12\x05\x1a\x03\x0a\x01\x07"
    )


def test_a_split_is_read_in_the_order_in_which_it_was_written(split):
    info = SplitInfo.read_split(split)
    images, labels = tfrecords.read_split(split, info)

    expected_images, expected_labels = random_split()
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)
    assert info.num_examples == 50
    some_images, some_labels = tfrecords.read_split(split, info, count=20)
    np.testing.assert_array_equal(some_images, expected_images[:20])
    np.testing.assert_array_equal(some_labels, expected_labels[:20])
    assert len(tfrecords.read_split(split, info, count=99)[1]) == 50
    assert sorted(info.sha256) == [
        "test-00000-of-00003.tfrecord",
        "test-00001-of-00003.tfrecord",
        "test-00002-of-00003.tfrecord",
    ]


def test_the_same_split_gives_the_same_bytes(split, tmp_path_factory):
    folder = tmp_path_factory.mktemp("again") / "test"
    tfrecords.write_split(folder, INFO, *random_split())

    for path in split.iterdir():
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_a_split_gives_the_names_of_its_files_back(tmp_path, split):
    images, labels = random_split()
    names = [f"dog/{index}.png" for index in range(49)] + ["ü,\n\udcff.png"]
    files = np.array([os.fsencode(name) for name in names])
    indices = np.arange(49, -1, -2)

    folder = tmp_path / "files"
    tfrecords.write_split(folder, INFO, images, labels, files=files, indices=indices)

    info = SplitInfo.read_split(folder)
    assert len(info.sha256) == 2
    assert tfrecords.read_files(folder, info) == names[::-2]
    np.testing.assert_array_equal(tfrecords.read_split(folder, info)[0], images[::-2])
    assert tfrecords.read_files(split, SplitInfo.read_split(split)) is None


def test_the_examples_of_each_class_are_counted(split, monkeypatch):
    monkeypatch.setattr(tfrecords, "PARSE_BATCH_SIZE", 16)

    counts = tfrecords.count_labels(split, SplitInfo.read_split(split))

    _, labels = random_split()
    assert counts.tolist() == [np.sum(labels == label) for label in range(NUM_CLASSES)]


def stream(folder, chunk_size=20, seed=(7, 1), buffer_size=10):
    info = SplitInfo.read_split(folder)
    return list(
        tfrecords.stream_split(
            folder, info, chunk_size=chunk_size, buffer_size=buffer_size, seed=seed
        )
    )


def pairs_of(images, labels):
    return [
        (image.tobytes(), label) for image, label in zip(images, labels, strict=True)
    ]


@pytest.mark.parametrize("chunk_size", [20, 25, 64])
def test_a_stream_has_every_example_once_in_chunks(split, chunk_size):
    chunks = stream(split, chunk_size=chunk_size)

    sizes = [len(labels) for _, labels in chunks]
    assert sum(sizes) == 50
    assert set(sizes[:-1]) <= {chunk_size}
    streamed = [pair for chunk in chunks for pair in pairs_of(*chunk)]
    assert sorted(streamed) == sorted(pairs_of(*random_split()))


def order_of(folder, **options):
    """Returns the position of each streamed example in the files."""
    written = pairs_of(*random_split())
    return [
        written.index(pair)
        for chunk in stream(folder, **options)
        for pair in pairs_of(*chunk)
    ]


def test_a_stream_is_shuffled_across_shards_by_its_seed_alone(split):
    orders = [order_of(split, seed=seed) for seed in ((7, 1), (7, 1), (7, 2), (8, 1))]

    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    # The first 15 include examples of the first and the last shard.
    assert max(orders[0][:15]) > 34
    assert min(orders[0][:15]) < 17


def test_a_stream_shuffles_both_shards_and_examples(split):
    # Without a buffer, the seed decides only the order of the shards.
    shard_orders = {
        tuple(order_of(split, seed=(n, 1), buffer_size=1)) for n in range(9)
    }
    assert 1 < len(shard_orders) <= 6
    # Within a shard, the buffer changes the order.
    in_order = order_of(split, buffer_size=1)
    shuffled = order_of(split, buffer_size=10)
    first_shard = [i for i in in_order if i < 16]
    assert first_shard == sorted(first_shard)
    assert [i for i in shuffled if i < 16] != first_shard
