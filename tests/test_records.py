"""TFRecords: encode, write, read, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from core_mlp import records
from core_mlp.errors import InputError

SHAPE = (3, 2, 1)
NUM_CLASSES = 10


def random_split(num_examples=50, shape=SHAPE):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, [num_examples, *shape], np.uint8)
    return images, rng.integers(0, NUM_CLASSES, num_examples)


def read(folder, num_examples=50, image_shape=SHAPE, num_classes=NUM_CLASSES):
    return records.read_split(
        folder,
        "test",
        num_examples=num_examples,
        image_shape=image_shape,
        num_classes=num_classes,
    )


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """A split of 50 examples in three files."""
    monkeypatch.setattr(records, "SHARD_BYTES", 120)
    monkeypatch.setattr(records, "BLOCK_LENGTH", 2)
    images, labels = random_split()
    records.write_split(tmp_path, "test", images, labels)
    return sorted(tmp_path.iterdir())


def test_parse_undoes_encode_eagerly_and_in_tf_data():
    images, labels = random_split()
    serialized = [
        records.encode_example(image, label)
        for image, label in zip(images, labels, strict=True)
    ]
    dataset = tf.data.Dataset.from_tensors(serialized).map(
        lambda batch: records.parse_examples(batch, SHAPE)
    )

    for parsed in (records.parse_examples(serialized, SHAPE), next(iter(dataset))):
        np.testing.assert_array_equal(parsed[0], images)
        np.testing.assert_array_equal(parsed[1], labels)
        assert [tensor.dtype for tensor in parsed] == [tf.uint8, tf.int64]


def test_an_example_has_the_same_bytes_in_every_process():
    image = np.arange(6, dtype=np.uint8).reshape(SHAPE)

    # Features {feature {key: "image" value: bytes} feature {key: "label" value: 7}}
    assert records.encode_example(image, 7) == (
        b"\x0a\x25"
        b"\x0a\x13\x0a\x05image\x12\x0a\x0a\x08\x0a\x06\x00\x01\x02\x03\x04\x05"
        b"\x0a\x0e\x0a\x05label\x12\x05\x1a\x03\x0a\x01\x07"
    )


def test_a_split_is_read_in_the_order_in_which_it_was_written(shards):
    images, labels = read(shards[0].parent)

    expected_images, expected_labels = random_split()
    np.testing.assert_array_equal(images, expected_images)
    np.testing.assert_array_equal(labels, expected_labels)
    assert [path.name for path in shards] == [
        "test-00000-of-00003.tfrecord",
        "test-00001-of-00003.tfrecord",
        "test-00002-of-00003.tfrecord",
    ]


def test_the_same_split_gives_the_same_bytes(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("again")
    records.write_split(folder, "test", *random_split())

    for path in shards:
        assert path.read_bytes() == (folder / path.name).read_bytes()


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_missing_file_is_refused(shards, index):
    shards[index].unlink()

    with pytest.raises(InputError, match="not all shards of test are there"):
        read(shards[0].parent)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-1], id="truncated"),
        pytest.param(
            lambda content: content[:60] + b"?" + content[61:], id="corrupted"
        ),
        pytest.param(lambda content: b"no TFRecord at all", id="other"),
    ],
)
def test_a_damaged_file_is_named(shards, damage):
    shards[1].write_bytes(damage(shards[1].read_bytes()))

    with pytest.raises(InputError, match=r"test-00001-of-00003.*damaged") as error:
        read(shards[0].parent)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("image_shape", [(3, 3, 1), (3, 2, 3), (1, 2, 1)])
def test_images_of_another_shape_are_refused(shards, image_shape):
    with pytest.raises(InputError, match="test-00000-of-00003"):
        read(shards[0].parent, image_shape=image_shape)


def test_a_label_out_of_range_is_refused(shards):
    with pytest.raises(InputError, match=r"00000.*a label is outside 0 to 2"):
        read(shards[0].parent, num_classes=3)


@pytest.mark.parametrize("num_examples", [40, 60, 10**15])
def test_another_number_of_examples_is_refused(shards, num_examples):
    with pytest.raises(InputError, match=f"{num_examples}"):
        read(shards[0].parent, num_examples=num_examples)


def stream(
    folder, chunk_size=20, seed=(7, 1), num_examples=50, num_classes=NUM_CLASSES
):
    chunks = records.stream_split(
        folder,
        "test",
        num_examples=num_examples,
        image_shape=SHAPE,
        num_classes=num_classes,
        chunk_size=chunk_size,
        buffer_size=10,
        seed=seed,
    )
    return list(chunks)


def pairs_of(images, labels):
    return [
        (image.tobytes(), label) for image, label in zip(images, labels, strict=True)
    ]


@pytest.mark.parametrize("chunk_size", [20, 25, 64])
def test_a_stream_has_every_example_once_in_chunks(shards, chunk_size):
    chunks = stream(shards[0].parent, chunk_size=chunk_size)

    sizes = [len(labels) for _, labels in chunks]
    assert sum(sizes) == 50
    assert set(sizes[:-1]) <= {chunk_size}
    streamed = [pair for chunk in chunks for pair in pairs_of(*chunk)]
    assert sorted(streamed) == sorted(pairs_of(*random_split()))


def test_a_stream_is_shuffled_across_shards_by_its_seed_alone(shards):
    written = pairs_of(*random_split())
    orders = [
        [written.index(pair) for chunk in stream(shards[0].parent, seed=seed)
         for pair in pairs_of(*chunk)]
        for seed in ((7, 1), (7, 1), (7, 2), (8, 1))
    ]  # fmt: skip

    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
    # Of the first 15 none but the first shard's, if the shards came one by one.
    assert max(orders[0][:15]) > 34
    assert min(orders[0][:15]) < 17


def test_a_damaged_stream_is_refused(shards):
    folder = shards[0].parent
    with pytest.raises(InputError, match="60"):
        stream(folder, num_examples=60)
    with pytest.raises(InputError, match="a label is outside 0 to 2"):
        stream(folder, num_classes=3)
    content = shards[1].read_bytes()
    shards[1].write_bytes(content[:60] + b"?" + content[61:])
    with pytest.raises(InputError, match=f"{folder}.*damaged"):
        stream(folder)
