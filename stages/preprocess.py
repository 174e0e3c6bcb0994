"""Cuts validation from train and writes TFRecords.

Reads data/raw/ and the parameter validation_size. Writes data/tfrecords/, and in
plots/ examples.png, label_distribution.csv and label_distribution.png.
"""

from pathlib import Path

import numpy as np

from core_mlp import figures, params, records, reports
from core_mlp.descriptions import DatasetInfo
from core_mlp.errors import InputError, exit_on_bad_input

RAW = Path("data/raw")
TFRECORDS = Path("data/tfrecords")
PLOTS = Path("plots")
NUM_DRAWN = 9


def main() -> None:
    validation_size = params.load_params(params.PreprocessParams).validation_size
    info = DatasetInfo.read(RAW / "info.json")
    num_train = info.num_examples["train"] - validation_size
    if num_train < 1:
        raise InputError(
            f"{params.PATH}: validation_size = {validation_size}: at most "
            f"{info.num_examples['train'] - 1}, so that {info.dataset} has an image "
            "left to train on"
        )
    arrays = {
        split: [
            np.load(RAW / f"{split}_{kind}.npy", mmap_mode="r")
            for kind in ("images", "labels")
        ]
        for split in ("train", "test")
    }
    splits = {
        "train": [array[validation_size:] for array in arrays["train"]],
        "validation": [array[:validation_size] for array in arrays["train"]],
        "test": arrays["test"],
    }
    reports.make_folder(TFRECORDS)
    for split, (images, labels) in splits.items():
        records.write_split(TFRECORDS, split, images, labels)
        print(f"{split}: {len(labels):,} images")
    num_examples = {split: len(labels) for split, (_, labels) in splits.items()}
    info.model_copy(update={"num_examples": num_examples}).write(
        TFRECORDS / "info.json"
    )

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


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
