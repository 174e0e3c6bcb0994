"""Datasets from TensorFlow Datasets (TFDS), downloaded or from local archives."""

import gzip
import hashlib
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from pydantic import ValidationError

# TFDS finds the datasets whose modules are imported.
from core_mlp.sources import digits  # noqa: F401  # isort: skip
from core_mlp.pipeline.files import process_lock, sha256
from core_mlp.pipeline.metadata import SplitInfo, first_problem
from core_mlp.pipeline.params import PATH as PARAMS
from core_mlp.pipeline.stage import InputError

READ_BATCH_SIZE = 1024
NUM_PARALLEL_DECODES = 16
# MNIST and its relatives: the original files with nothing but the labels.
LABEL_ARCHIVES = {
    "train": "train-labels-idx1-ubyte.gz",
    "test": "t10k-labels-idx1-ubyte.gz",
}
LABEL_ARCHIVE_HEADER_BYTES = 8


def find_dataset(name: str, source_dir: Path) -> tuple[tfds.core.DatasetBuilder, Path]:
    """Finds a dataset by its name.

    TFDS looks up a prepared dataset by its name alone. Here its folder also depends on
    TFDS's version and on the content of the archives, so that data prepared from other
    files, or by another program, is never used.

    Args:
      name: Name of a TFDS dataset or of one in this package.
      source_dir: Has a folder per dataset with its original files; need not exist.

    Returns:
      The builder, and the dataset's folder in `source_dir`.

    Raises:
      InputError: If there is no such dataset, it does not have images of one shape with
        labels, or a file in its folder is not the original.
    """
    archives = source_dir / re.split("[/:]", name)[0]
    digests = {
        path.relative_to(archives).as_posix(): sha256(path)
        for path in sorted(archives.rglob("*"))
        if path.is_file()
    }
    key = hashlib.sha256(f"{tfds.__version__} {digests}".encode()).hexdigest()[:16]
    try:
        builder = tfds.builder(name, data_dir=cache_dir() / key)
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(
            f"{PARAMS}: dataset = {name}: neither TFDS nor {__package__} has a dataset "
            "of that name; some that work are mnist, cifar10 and sklearn_digits"
        ) from error
    # An unknown version or config, or a corrupt folder: builders raise many things.
    except Exception as error:
        raise InputError(f"{PARAMS}: dataset = {name}: {_describe(error)}") from error
    _check_features(builder)
    for _, file, expected in _archives(builder):
        if (found := digests.get(file, expected)) != expected:
            raise InputError(
                f"{archives / file}: corrupt or not the original: its SHA-256 is "
                f"{found}; expected {expected}"
            )
    return builder, archives


def cache_dir() -> Path:
    """Returns the folder, within TFDS's own, that all copies of this repository use."""
    return Path(tfds.core.constants.DATA_DIR, "core_mlp")


@contextmanager
def prepared_dataset(
    builder: tfds.core.DatasetBuilder, archives: Path
) -> Iterator[None]:
    """Prepares a dataset in the builder's folder, unless it is already there.

    Until the block ends, no other run of fetch prepares the dataset again. An original
    file that is found in `archives` is used instead of a download. What is extracted
    from it is deleted: TFDS would reuse it for any file of the same name.

    Raises:
      InputError: If the dataset can be neither read nor downloaded, or lacks the splits
        train and test.
    """
    folder = Path(builder.data_path).parent
    lock = folder.with_name(f"{folder.name}.lock")
    with process_lock(lock, f"preparing {builder.name}"):
        _prepare(builder, archives, extract_dir=folder / "extracted")
        if not {"train", "test"} <= set(builder.info.splits):
            raise InputError(
                f"dataset = {builder.name}: needs the splits train and test; it has "
                f"{', '.join(builder.info.splits) or 'none'}"
            )
        yield


def _prepare(
    builder: tfds.core.DatasetBuilder, archives: Path, extract_dir: Path
) -> None:
    missing = {
        url: file
        for url, file, _ in _archives(builder)
        if not (archives / file).exists()
    }
    if missing and not builder.data_path.exists():
        print(
            f"Downloading what is not in {archives}: {', '.join(missing)}; without a "
            "network, TFDS gives up after about four minutes",
            flush=True,
        )
    # Left behind by a run that was killed, it may be from other archives.
    shutil.rmtree(extract_dir, ignore_errors=True)
    config = tfds.download.DownloadConfig(
        extract_dir=extract_dir, manual_dir=archives, try_download_gcs=False
    )
    is_ours = type(builder).__module__.startswith("core_mlp.")
    if is_ours:
        # TFDS would reuse what an earlier version of our code has prepared.
        config.download_mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        builder.download_and_prepare(
            # TFDS names downloads by URL and checksum, so they can be shared.
            download_dir=Path(tfds.core.constants.DATA_DIR, "downloads"),
            download_config=config,
        )
    # TFDS's builders raise whatever their sources make them raise.
    except Exception as error:
        import tensorflow as tf

        # A bug in our own builder keeps its traceback; a full disk is not one.
        if is_ours and not isinstance(error.__cause__, (OSError, tf.errors.OpError)):
            raise
        problem = _describe(error)
        if missing:
            problem += (
                f"; without a network, put these files into {archives}: "
                f"{', '.join(missing.values())}"
            )
        raise InputError(
            f"dataset = {builder.name}: cannot be prepared: {problem}"
        ) from error
    finally:
        shutil.rmtree(extract_dir, ignore_errors=True)


def describe_split(builder: tfds.core.DatasetBuilder, split: str) -> SplitInfo:
    """Describes a split of a prepared dataset; raises InputError if it is empty."""
    info = builder.info
    try:
        return SplitInfo(
            dataset=info.full_name.removesuffix(f"/{info.version}"),
            version=str(info.version),
            image_shape=info.features["image"].shape,
            class_names=info.features["label"].names,
            num_examples=info.splits[split].num_examples,
        )
    except ValidationError as error:
        raise InputError(
            f"dataset = {builder.name}, {split}: {first_problem(error)}"
        ) from error


def read_batches(
    builder: tfds.core.DatasetBuilder, split: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads a split of a prepared dataset, in TFDS's fixed order.

    Yields:
      `[B, H, W, C]` uint8 images and `[B]` int64 labels.

    Raises:
      InputError: If an image has no label (-1 in TFDS), or a file is corrupt.
    """
    import tensorflow as tf

    # One file after another, so that the order does not depend on parallelism.
    read_config = tfds.ReadConfig(
        interleave_cycle_length=1,
        num_parallel_calls_for_decode=NUM_PARALLEL_DECODES,
        try_autocache=False,
    )
    # Closing an iterator waits for its autotuning thread, which sleeps for seconds.
    read_config.options.autotune.enabled = False
    dataset = builder.as_dataset(
        split=split, batch_size=READ_BATCH_SIZE, read_config=read_config
    )
    try:
        for batch in tfds.as_numpy(dataset):
            if batch["label"].min() < 0:
                raise InputError(
                    f"dataset = {builder.name}: {split} has images without a label"
                )
            yield batch["image"], batch["label"]
    except tf.errors.OpError as error:
        raise InputError(
            f"{builder.data_path}: corrupt; delete it and run the stage again: "
            f"{_describe(error)}"
        ) from error


def check_labels(archives: Path, split: str, labels: np.ndarray) -> None:
    """Raises InputError if the archive of the labels, if any, states other counts."""
    path = archives / LABEL_ARCHIVES[split]
    if not path.exists():
        return
    with gzip.open(path) as file:
        content = file.read()[LABEL_ARCHIVE_HEADER_BYTES:]
    stated = np.bincount(np.frombuffer(content, np.uint8))
    found = np.bincount(labels)
    if not np.array_equal(stated, found):
        raise InputError(
            f"{path}: has {stated.tolist()} images of each label; the dataset that was "
            f"prepared from it has {found.tolist()}"
        )


def find_twin(info: SplitInfo) -> str | None:
    """Returns another dataset that was seen with the same images; remembers this."""
    path = cache_dir() / "digests" / info.sha256["images.npy"]
    if path.exists():
        known = path.read_text(encoding="utf-8")
        return known if known != info.dataset else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(info.dataset, encoding="utf-8")
    return None


def _check_features(builder: tfds.core.DatasetBuilder) -> None:
    """Raises InputError unless the dataset has images of one shape with labels."""
    features = builder.info.features
    image, label = (dict(features.items()).get(key) for key in ("image", "label"))
    if (
        not isinstance(image, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or None in image.shape
        or image.np_dtype != np.uint8
    ):
        found = f"{', '.join(features)}, with image = {image} and label = {label}"
        found = textwrap.shorten(found, 300, placeholder=" ...")
        raise InputError(
            f"{PARAMS}: dataset = {builder.name}: needs the features image, uint8 of "
            f"one fixed shape, and label, a class; it has {found}"
        )


def _archives(builder: tfds.core.DatasetBuilder) -> Iterator[tuple[str, str, str]]:
    """Yields URL, file name and SHA-256 of each file that the dataset is made from."""
    for url, info in (builder.url_infos or {}).items():
        yield url, info.filename or Path(url).name, info.checksum


def _describe(error: Exception) -> str:
    """Returns an error as one line: its type and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return textwrap.shorten(text, 300, placeholder=" ...")
