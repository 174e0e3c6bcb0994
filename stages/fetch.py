"""Fetches a dataset and stores it as arrays.

Reads data/archives/ and the parameter dataset. Writes data/raw/: images and labels of
the train and the test split as .npy, and info.json.
"""

import sys
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from core_mlp import datasets, params
from core_mlp.descriptions import DatasetInfo
from core_mlp.errors import InputError, run_stage
from core_mlp.outputs import exclusive, replacing

ARCHIVES = Path("data/archives")
RAW = Path("data/raw")


def main() -> None:
    dataset = params.load_params(params.FetchParams).dataset
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    print(f"Preparing {dataset}", flush=True)
    try:
        builder, archives = datasets.find_dataset(dataset, ARCHIVES)
    except InputError as error:
        raise InputError(f"{params.PATH}: {error}") from error
    # Other copies of the repository use the folder too.
    folder = Path(builder.data_path).parent
    lock = folder.with_name(f"{folder.name}.lock")
    with exclusive(lock, f"prepares {dataset}"), replacing(RAW) as partial:
        datasets.prepare_dataset(builder, archives, _announce_download)
        info = datasets.describe_dataset(builder)
        partial.mkdir()
        for split in info.num_examples:
            _write_split(partial, split, builder, info)
            labels = np.load(partial / f"{split}_labels.npy")
            datasets.check_labels(archives, split, labels)
        info = info.with_digests(partial)
        info.write(partial / "info.json")
        for split in info.num_examples:
            digest = info.sha256[f"{split}_images.npy"]
            if twin := datasets.find_twin(digest, info.dataset):
                print(
                    f"warning: the {split} images are those of {twin}, byte for byte: "
                    f"is data/archives/{builder.name} really {info.dataset}?"
                )


def _write_split(
    folder: Path, split: str, builder: tfds.core.DatasetBuilder, info: DatasetInfo
) -> None:
    """Writes the images and the labels of a split, batch by batch."""
    count, shape = info.num_examples[split], info.image_shape
    with (
        _open_array(
            folder / f"{split}_images.npy", np.uint8, (count, *shape)
        ) as images,
        _open_array(folder / f"{split}_labels.npy", np.int64, (count,)) as labels,
        tqdm(total=count, desc=split, unit="image", disable=None) as bar,
    ):
        for image_batch, label_batch in datasets.read_batches(builder, split):
            images.write(image_batch.tobytes())
            labels.write(label_batch.tobytes())
            bar.update(len(label_batch))
    print(f"{split}: {count:,} images of {list(shape)}")


def _open_array(path: Path, dtype: type, shape: tuple[int, ...]) -> BinaryIO:
    """Opens a .npy whose elements are still to be written."""
    # Not a memory map: where the disk is full, writing to one kills the process.
    file = path.open("wb")
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file


def _announce_download(urls: list[str]) -> None:
    print(
        f"Not in {ARCHIVES}, so to be downloaded: {', '.join(urls)}; without a "
        "network, TFDS gives up after about four minutes",
        flush=True,
    )


if __name__ == "__main__":
    run_stage(main)
