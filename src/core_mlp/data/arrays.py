"""Splits as NumPy arrays: what fetch writes and preprocess reads."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import SplitInfo, first_problem

# `[B, H, W, C]` uint8 images and `[B]` int64 labels.
Batches = Iterable[tuple[np.ndarray, np.ndarray]]
# Writes the images of a split into a file, from an offset on, in their order. Yields
# the labels, `[B]` int64, of those that have been written.
ImageWriter = Callable[[Path, int], Iterator[np.ndarray]]


class Split(NamedTuple):
    """A split of a source.

    Attributes:
      name: train or test.
      info: Its metadata.
      write_images: Writes its images, and yields their labels.
      files: `[N]` bytes, the path of each example's file in the dataset's folder; None
        if there are no files.
    """

    name: str
    info: SplitInfo
    write_images: ImageWriter
    files: np.ndarray | None = None


def describe_split(dataset: str, **fields: Any) -> SplitInfo:
    """Returns the metadata of a split; raises InputError if it is not valid."""
    try:
        return SplitInfo(dataset=dataset, **fields)
    except ValidationError as error:
        raise InputError(f"dataset = {dataset}: {first_problem(error)}") from error


def write_arrays(
    folder: Path,
    info: SplitInfo,
    write_images: ImageWriter,
    files: np.ndarray | None = None,
) -> None:
    """Writes images.npy, labels.npy and info.json.

    If the examples have files, writes their paths, `[N]` bytes, as files.npy.
    """
    folder.mkdir()
    if files is not None:
        np.save(folder / "files.npy", files)
    shape = (info.num_examples, *info.image_shape)
    image_bytes = math.prod(info.image_shape)
    images_path = folder / "images.npy"
    with _open_array(images_path, np.uint8, shape) as file:
        start = file.tell()
    digest = hashlib.sha256()
    with (
        # Without a buffer, which could be filled with what is not yet written.
        images_path.open("rb", buffering=0) as images,
        _open_array(folder / "labels.npy", np.int64, shape[:1]) as labels,
        tqdm(total=shape[0], desc=folder.name, unit="image", disable=None) as bar,
    ):
        digest.update(images.read(start))
        for label_batch in write_images(images_path, start):
            # Now, while they are in the page cache and the next ones are decoded.
            digest.update(images.read(len(label_batch) * image_bytes))
            labels.write(label_batch.tobytes())
            bar.update(len(label_batch))
    info.write_split(folder, {images_path.name: digest.hexdigest()})


def batch_writer(batches: Batches) -> ImageWriter:
    """Returns a function that writes the images of batches."""

    def write_images(path: Path, start: int) -> Iterator[np.ndarray]:
        with path.open("r+b") as file:
            file.seek(start)
            for images, labels in batches:
                file.write(images.tobytes())
                file.flush()
                yield labels

    return write_images


def read_arrays(folder: Path) -> tuple[SplitInfo, np.ndarray, np.ndarray]:
    """Reads a split's metadata, images and labels; the arrays are memory-mapped."""
    info = SplitInfo.read_split(folder)
    images = np.load(folder / "images.npy", mmap_mode="r")
    labels = np.load(folder / "labels.npy", mmap_mode="r")
    return info, images, labels


def read_files(folder: Path) -> np.ndarray | None:
    """Reads the paths of a split's files, `[N]` bytes; None if it has none."""
    path = folder / "files.npy"
    return np.load(path) if path.exists() else None


def _open_array(path: Path, dtype: type, shape: tuple[int, ...]) -> BinaryIO:
    """Creates a .npy file with its header; the caller appends the elements."""
    # Not a memory map: when the disk is full, writing to one kills the process.
    file = path.open("wb")
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file
