"""Hold out validation images and write every split as TFRecords.

Reads data/raw/ and the parameter validation_size. Writes data/tfrecords/train/,
data/tfrecords/validation/, data/tfrecords/test/, plots/label_distribution.csv and
plots/examples.png.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from core_mlp.data import tfrecords
from core_mlp.evaluation import plots
from core_mlp.pipeline import params
from core_mlp.pipeline.files import atomic_output, write_csv
from core_mlp.pipeline.stage import InputError, run_stage
from core_mlp.sources import arrays

RAW = Path("data/raw")
TFRECORDS = Path("data/tfrecords")
PLOTS = Path("plots")


def main() -> None:
    size = params.load_params(params.PreprocessParams).validation_size
    info, images, labels = arrays.read_arrays(RAW / "train")
    _, test_images, test_labels = arrays.read_arrays(RAW / "test")
    if size >= info.num_examples:
        raise InputError(
            f"{params.PATH}: validation_size = {size}: at most "
            f"{info.num_examples - 1}, so that an image of {info.dataset} is left to "
            "train on"
        )
    splits = {
        "train": (images[size:], labels[size:]),
        "validation": (images[:size], labels[:size]),
        "test": (test_images, test_labels),
    }
    label_counts = []
    for split, (split_images, split_labels) in splits.items():
        with atomic_output(TFRECORDS / split, tf.errors.OpError) as partial:
            tfrecords.write_split(partial, split_images, split_labels, info)
        counts = np.bincount(split_labels, minlength=len(info.class_names))
        rows = zip(info.class_names, counts, strict=True)
        label_counts += [(split, *row) for row in rows]
        print(f"{split}: {len(split_labels):,} images")
    write_csv(
        PLOTS / "label_distribution.csv", ["split", "label", "count"], label_counts
    )
    plots.draw_examples(
        PLOTS / "examples.png",
        images[size : size + plots.NUM_EXAMPLES],
        [info.class_names[label] for label in labels[size : size + plots.NUM_EXAMPLES]],
        title=f"Training images of {info.dataset}",
    )


if __name__ == "__main__":
    run_stage(main)
