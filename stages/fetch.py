"""Fetches a dataset and stores it as arrays.

Reads data/archives/ and the parameter dataset. Writes data/raw/: images and labels of
the train and the test split as .npy, and info.json.
"""

import sys
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from core_mlp import datasets, params, reports
from core_mlp.errors import InputError, exit_on_bad_input

ARCHIVES = Path("data/archives")
RAW = Path("data/raw")


def main() -> None:
    dataset = params.load_params(params.FetchParams).dataset
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    print(f"Preparing {dataset}", flush=True)
    try:
        builder = datasets.find_dataset(dataset)
    except InputError as error:
        raise InputError(f"{params.PATH}: {error}") from error
    datasets.prepare_dataset(builder, ARCHIVES / builder.name, _announce_download)
    info = datasets.describe_dataset(builder)
    reports.make_folder(RAW)
    for split, count in info.num_examples.items():
        images = np.lib.format.open_memmap(
            RAW / f"{split}_images.npy", "w+", np.uint8, (count, *info.image_shape)
        )
        labels = np.empty(count, np.int64)
        end = 0
        with tqdm(total=count, desc=split, unit="image", disable=None) as bar:
            for image_batch, label_batch in datasets.read_batches(builder, split):
                start, end = end, end + len(label_batch)
                images[start:end], labels[start:end] = image_batch, label_batch
                bar.update(len(label_batch))
        np.save(RAW / f"{split}_labels.npy", labels)
        print(f"{split}: {count:,} images of {list(info.image_shape)}")
    info.write(RAW / "info.json")


def _announce_download(urls: list[str]) -> None:
    print(
        f"Not in {ARCHIVES}, so to be downloaded: {', '.join(urls)}; without a "
        "network, TFDS gives up after about four minutes",
        flush=True,
    )


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
