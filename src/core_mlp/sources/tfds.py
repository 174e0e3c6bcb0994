"""Datasets from TensorFlow Datasets (TFDS), downloaded or from local archives."""

import hashlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

# TFDS finds only the datasets whose modules are imported.
from core_mlp.sources import digits  # noqa: F401  # isort: skip
from core_mlp.data.arrays import Batches, Split, batch_writer, describe_split
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import process_lock, sha256
from core_mlp.pipeline.params import PARAMS_FILE
from core_mlp.sources.image_files import convert_image, resize_image
from core_mlp.sources.listing import Listing, list_folder

READ_BATCH_SIZE = 1024
NUM_PARALLEL_DECODES = 16
# Datasets of drawings: side, in pixels, of the square each drawing was scaled to, by
# name and shape of the images.
DRAWING_SIDES = {("mnist", (28, 28, 1)): 20}
Builder = tfds.core.DatasetBuilder
Shape = tuple[int, int, int]


def find_dataset(
    name: str,
    source_dir: Path,
    image_size: Sequence[int] | None = None,
    channels: int | None = None,
) -> tuple[Builder, Path, Shape]:
    """Finds a dataset by its name.

    TFDS looks up a prepared dataset by its name alone. Here its folder also depends on
    TFDS's version and on the content of the archives, so that data prepared from other
    files, or by another program, is never used.

    Returns:
      The builder, the folder of its original files in `source_dir`, which need not
      exist, and the shape of the images to write, `(H, W, C)`.

    Raises:
      InputError: If there is no such dataset, or it does not have images of one shape
        with labels.
    """
    base_name = re.split("[/:]", name)[0]
    listing = list_folder(source_dir, base_name)
    archives = listing.root
    if listing.ignored:
        listing.refuse_ignored(listing.ignored[0])
    digests = {path: sha256(archives / path) for path in listing.files}
    facts = f"{tfds.__version__} {digests}".encode(errors="surrogateescape")
    key = hashlib.sha256(facts).hexdigest()[:16]
    # Within TFDS's own folder, so that all copies of this repository use it.
    data_dir = _tfds_dir() / "core_mlp" / key
    try:
        builder = tfds.builder(name, data_dir=data_dir)
    # An unknown version or config, or a corrupt folder: builders may raise anything.
    except Exception as error:
        problem = _describe(error)
        is_tfds_name = re.fullmatch(r"\w+", base_name)
        if isinstance(error, tfds.core.DatasetNotFoundError) or not is_tfds_name:
            problem = (
                "TFDS has no dataset of that name (some that work are mnist, cifar10, "
                f"sklearn_digits), and there are no images in {archives}/CLASS/: "
                f"{_describe_folder(listing)}"
            )
        raise InputError(f"{PARAMS_FILE}: dataset = {name}: {problem}") from error
    return builder, archives, _output_shape(builder, image_size, channels)


def prepare_dataset(builder: Builder, archives: Path, scratch_dir: Path) -> Builder:
    """Prepares a dataset in the builder's folder, unless it is already there.

    An original file that is found in `archives` is used instead of a download. Files
    extracted from it are deleted: TFDS would reuse them for any file of the same name.

    A dataset of our own is prepared again in `scratch_dir`: TFDS would reuse what an
    earlier version of our code prepared.

    Returns:
      The builder to read the dataset from.

    Raises:
      InputError: If the dataset can be neither read nor downloaded, or lacks the split
        train.
    """
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    if _is_ours(builder):
        builder = type(builder)(
            data_dir=scratch_dir,
            config=builder.builder_config,
            version=str(builder.version),
        )
        shared = _tfds_dir() / "downloads"
        existing = next(path for path in [shared, *shared.parents] if path.exists())
        is_writable = os.access(existing, os.W_OK)
        download_dir = shared if is_writable else scratch_dir / "downloads"
        _download_and_prepare(builder, archives, download_dir)
    # Once prepared, it needs no lock: another user's dataset is read-only to us.
    elif not builder.data_path.exists():
        lock = Path(builder.data_path).parent.with_suffix(".lock")
        try:
            with process_lock(lock, f"preparing {builder.name}"):
                if builder.data_path.exists():  # By the process that held the lock.
                    builder.info.read_from_directory(builder.data_path)
                else:
                    # TFDS names downloads by URL and checksum, so they can be shared.
                    download_dir = _tfds_dir() / "downloads"
                    _download_and_prepare(builder, archives, download_dir)
        except OSError as error:
            raise InputError(
                f"TFDS_DATA_DIR = {_tfds_dir()}: {builder.name} is not prepared there, "
                f"and cannot be: {error.filename or lock}: {error.strerror or error}: "
                "set it to a folder of your own"
            ) from error
    splits = builder.info.splits
    if "train" not in splits:
        found = ", ".join(splits) or "none"
        problem = f"no split train, but {found}, in {builder.data_path}"
        raise InputError(f"dataset = {builder.name}: {problem}")
    return builder


def _download_and_prepare(builder: Builder, archives: Path, download_dir: Path) -> None:
    """Prepares a dataset in the builder's folder, which does not exist yet."""
    extract_dir = Path(builder.data_path).parent / "extracted"
    missing = {}
    for url, info in (builder.url_infos or {}).items():
        name = info.filename or Path(url).name
        if not (archives / name).exists():
            missing[url] = name
    if missing:
        print(
            f"Downloading what is not in {archives}: {', '.join(missing)}; without a "
            "network, TFDS gives up after about four minutes",
            flush=True,
        )
    try:
        builder.download_and_prepare(
            download_dir=download_dir,
            download_config=tfds.download.DownloadConfig(
                extract_dir=extract_dir, manual_dir=archives, try_download_gcs=False
            ),
        )
    # TFDS's builders raise errors of any type, as their sources do.
    except Exception as error:
        import tensorflow as tf

        # A bug in our own builder keeps its traceback; a full disk is not a bug.
        io_errors = (OSError, tf.errors.OpError)
        if _is_ours(builder) and not isinstance(error.__cause__ or error, io_errors):
            raise
        problem = f"cannot be prepared: {_describe(error)}"
        if missing:
            files = ", ".join(missing.values())
            problem += f"; without a network, put into {archives}: {files}"
        raise InputError(f"dataset = {builder.name}: {problem}") from error
    finally:
        shutil.rmtree(extract_dir, ignore_errors=True)


def _is_ours(builder: Builder) -> bool:
    return type(builder).__module__.startswith("core_mlp.")


def _tfds_dir() -> Path:
    """Returns TFDS's folder, `$TFDS_DATA_DIR` or one in the home folder, absolute."""
    path = Path(tfds.core.constants.DATA_DIR or "~/tensorflow_datasets")
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:
        raise InputError(f"TFDS_DATA_DIR = {path}: {error}") from error


def _describe_folder(listing: Listing) -> str:
    """Describes the content of a folder that has no class folders with images."""
    root = listing.root
    dvc_file = root.with_name(f"{root.name}.dvc")
    if dvc_file.exists() and not root.exists():
        return f"{dvc_file} exists, but its files do not: run `dvc pull {dvc_file}`"
    if listing.files:
        example = str(root / listing.files[0])
        return f"it has {len(listing.files):,} other files, such as {example!r}"
    if root.exists():
        return "it is empty" if root.is_dir() else "it is a file"
    beside = [path.name for path in sorted(root.parent.glob("[!.]*")) if path.is_dir()]
    return (
        f"{root.parent} has {', '.join(beside) or 'no folders'}; with --temp or "
        "--queue, they must be in Git or DVC"
    )


def read_splits(builder: Builder, shape: Shape) -> Iterator[Split]:
    """Yields train, and test if there is one.

    Raises:
      InputError: If a split is empty, an image has no label (-1 in TFDS), or a file is
        corrupt.
    """
    info = builder.info
    name, names = info.full_name, info.features["label"].names
    name = name.removesuffix(f"/{info.version}")
    for split in sorted({"train", "test"} & set(info.splits), reverse=True):
        count = info.splits[split].num_examples
        is_train = split == "train"
        split_info = describe_split(
            dataset=name,
            version=str(info.version),
            image_shape=shape,
            class_names=names,
            num_examples=count,
            drawing_side=DRAWING_SIDES.get((name, tuple(shape))) if is_train else None,
        )
        batches = _read_batches(builder, split, shape)
        yield Split(split, split_info, batch_writer(batches))


def _read_batches(builder: Builder, split: str, shape: Shape) -> Batches:
    """Reads a split in TFDS's fixed order; converts and resizes to another shape."""
    import tensorflow as tf

    # One file after another, so that the order does not depend on parallelism.
    read_config = tfds.ReadConfig(
        interleave_cycle_length=1,
        num_parallel_calls_for_decode=NUM_PARALLEL_DECODES,
        try_autocache=False,
    )
    # Closing an iterator waits for its autotuning thread, which sleeps for seconds.
    read_config.options.autotune.enabled = False
    # Images of different sizes cannot be in one batch.
    is_fixed = None not in builder.info.features["image"].shape
    batch_size = READ_BATCH_SIZE if is_fixed else 1
    dataset = builder.as_dataset(split, batch_size=batch_size, read_config=read_config)
    try:
        for batch in tfds.as_numpy(dataset):
            if batch["label"].min() < 0:
                problem = f"{split} has images without a label"
                raise InputError(f"dataset = {builder.name}: {problem}")
            images = batch["image"]
            if images.shape[1:] != shape:
                images = np.stack([_fit(image, shape) for image in images])
            yield images, batch["label"]
    except tf.errors.OpError as error:
        raise InputError(
            f"{builder.data_path}: corrupt; delete it and run the stage again: "
            f"{_describe(error)}"
        ) from error


def _fit(image: np.ndarray, shape: Shape) -> np.ndarray:
    """Converts and resizes an image to a shape, `[H, W, C]`."""
    pixels = image.squeeze(axis=2) if image.shape[2] == 1 else image
    converted = convert_image(Image.fromarray(pixels), shape[2])
    return np.atleast_3d(resize_image(converted, shape[:2]))


def _output_shape(
    builder: Builder, image_size: Sequence[int] | None, channels: int | None
) -> Shape:
    """Raises InputError unless the dataset has images of one shape with labels."""
    features = builder.info.features
    by_name = dict(features.items())
    image = by_name.get("image")
    label = by_name.get("label")
    if (
        not isinstance(image, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or image.np_dtype != np.uint8
    ):
        found = f"{', '.join(features)}, with image = {image} and label = {label}"
        found = textwrap.shorten(found, 300, placeholder=" ...")
        raise InputError(
            f"{PARAMS_FILE}: dataset = {builder.name}: needs the features image, "
            f"uint8, and label, a class; it has {found}"
        )
    height, width, depth = image.shape
    if depth and (image_size or channels):
        depth = 1 if depth < 3 else 3
    shape = (*(image_size or (height, width)), channels or depth)
    if None in shape:
        key = "image_size" if None in shape[:2] else "channels"
        found = f"the images of {builder.name} have the shape {image.shape}"
        raise InputError(f"{PARAMS_FILE}: {key} = null: {found}: set {key}")
    return shape


def _describe(error: Exception) -> str:
    """Returns an error as one line: its type and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return textwrap.shorten(text, 300, placeholder=" ...")
