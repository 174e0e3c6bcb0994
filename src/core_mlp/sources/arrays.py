"""Splits as NumPy arrays: what fetch writes and preprocess reads."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from core_mlp.pipeline.metadata import SplitInfo, first_problem
from core_mlp.pipeline.stage import InputError

# `[B, H, W, C]` uint8 images and `[B]` int64 labels.
Batches = Iterable[tuple[np.ndarray, np.ndarray]]


def describe_split(
    dataset: str, version: str, shape: Sequence[int], names: Sequence[str], count: int
) -> SplitInfo:
    """Returns the metadata of a split; raises InputError if they are not valid."""
    try:
        return SplitInfo(
            dataset=dataset,
            version=version,
            image_shape=shape,
            class_names=names,
            num_examples=count,
        )
    except ValidationError as error:
        raise InputError(f"dataset = {dataset}: {first_problem(error)}") from error


def write_arrays(folder: Path, info: SplitInfo, batches: Batches) -> None:
    """Writes images.npy, labels.npy and info.json, batch by batch."""
    folder.mkdir()
    shape = (info.num_examples, *info.image_shape)
    with (
        _open_array(folder / "images.npy", np.uint8, shape) as images,
        _open_array(folder / "labels.npy", np.int64, shape[:1]) as labels,
        tqdm(total=shape[0], desc=folder.name, unit="image", disable=None) as bar,
    ):
        for image_batch, label_batch in batches:
            images.write(image_batch.tobytes())
            labels.write(label_batch.tobytes())
            bar.update(len(label_batch))
    info.write_split(folder)


def read_arrays(folder: Path) -> tuple[SplitInfo, np.ndarray, np.ndarray]:
    """Reads a split's metadata, images and labels; the arrays are memory-mapped."""
    info = SplitInfo.read_split(folder)
    paths = folder / "images.npy", folder / "labels.npy"
    return info, *(np.load(path, mmap_mode="r") for path in paths)


def _open_array(path: Path, dtype: type, shape: tuple[int, ...]) -> BinaryIO:
    """Opens a .npy file to which the elements are still to be written."""
    # Not a memory map: when the disk is full, writing to one kills the process.
    file = path.open("wb")
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file
