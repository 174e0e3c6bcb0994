"""Cuts validation from train and writes TFRecords.

Reads data/raw/ and the parameter validation_size. Writes data/tfrecords/, and in
plots/ examples.png, label_distribution.csv and label_distribution.png.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from core_mlp import figures, params, records, reports
from core_mlp.descriptions import DatasetInfo
from core_mlp.errors import InputError, run_stage
from core_mlp.outputs import replacing

RAW = Path("data/raw")
TFRECORDS = Path("data/tfrecords")
PLOTS = Path("plots")
NUM_DRAWN = 9


def main() -> None:
    validation_size = params.load_params(params.PreprocessParams).validation_size
    info = DatasetInfo.read(RAW / "info.json")
    arrays = {split: _load_split(info, split) for split in ("train", "test")}
    if validation_size >= info.num_examples["train"]:
        raise InputError(
            f"{params.PATH}: validation_size = {validation_size}: at most "
            f"{info.num_examples['train'] - 1}, so that {info.dataset} has an image "
            "left to train on"
        )
    splits = {
        "train": [array[validation_size:] for array in arrays["train"]],
        "validation": [array[:validation_size] for array in arrays["train"]],
        "test": arrays["test"],
    }
    num_examples = {split: len(labels) for split, (_, labels) in splits.items()}
    info = info.model_copy(update={"num_examples": num_examples})
    with replacing(TFRECORDS, tf.errors.OpError) as partial:
        partial.mkdir()
        for split, (images, labels) in splits.items():
            records.write_split(partial, split, images, labels)
            print(f"{split}: {len(labels):,} images")
        info.with_digests(partial).write(partial / "info.json")

    images, labels = (array[:NUM_DRAWN] for array in splits["train"])
    figures.draw_examples(
        PLOTS / "examples.png",
        images,
        [f"label: {info.class_names[label]}" for label in labels],
        columns=3,
        title=f"The first training images of {info.dataset}",
    )
    counts = np.stack(
        [
            np.bincount(labels, minlength=len(info.class_names))
            for _, labels in splits.values()
        ]
    )
    reports.write_csv(
        PLOTS / "label_distribution.csv",
        ["split", "label", "count"],
        [
            (split, name, count)
            for split, row in zip(splits, counts, strict=True)
            for name, count in zip(info.class_names, row, strict=True)
        ],
    )
    figures.draw_label_distribution(
        PLOTS / "label_distribution.png", list(splits), info.class_names, counts
    )


def _load_split(info: DatasetInfo, split: str) -> list[np.ndarray]:
    """Returns the images and the labels of a split, memory-mapped."""
    info.check_files(RAW, split)
    count = info.num_examples[split]
    arrays = []
    for kind, dtype, shape in (
        ("images", np.uint8, (count, *info.image_shape)),
        ("labels", np.int64, (count,)),
    ):
        path = RAW / f"{split}_{kind}.npy"
        try:
            array = np.load(path, mmap_mode="r")
        except ValueError as error:
            raise InputError(f"{path}: not an array: {error}") from error
        if (array.dtype, array.shape) != (dtype, shape):
            raise InputError(
                f"{path}: {array.dtype} {list(array.shape)}; info.json has "
                f"{np.dtype(dtype)} {list(shape)}"
            )
        arrays.append(array)
    last_class = len(info.class_names) - 1
    if array.min() < 0 or array.max() > last_class:
        raise InputError(f"{path}: a label is outside 0 to {last_class}")
    return arrays


if __name__ == "__main__":
    run_stage(main)
