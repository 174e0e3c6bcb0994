"""Hold out validation images and write every split as TFRecords.

Reads data/raw/ and the parameters augmentation, validation_size. Writes
data/tfrecords/train/, data/tfrecords/validation/, data/tfrecords/test/,
plots/label_distribution.csv and plots/examples.png.
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
from core_mlp.training.augmentation import add_draws

RAW = Path("data/raw")
TFRECORDS = Path("data/tfrecords")
PLOTS = Path("plots")


def main() -> None:
    p = params.load_params(params.PreprocessParams)
    info, images, labels = arrays.read_arrays(RAW / "train")
    names, size = info.class_names, p.validation_size
    if size >= info.num_examples:
        raise InputError(
            f"{params.PATH}: validation_size = {size}: at most "
            f"{info.num_examples - 1}, so that an image of {info.dataset} is left to "
            "train on"
        )
    splits = {
        "train": (images[size:], labels[size:]),
        "validation": (images[:size], labels[:size]),
        "test": arrays.read_arrays(RAW / "test")[1:],
    }
    label_counts = []
    for split, (split_images, split_labels) in splits.items():
        with atomic_output(TFRECORDS / split, tf.errors.OpError) as partial:
            tfrecords.write_split(partial, split_images, split_labels, info)
        counts = np.bincount(split_labels, minlength=len(names))
        label_counts += [(split, *row) for row in zip(names, counts, strict=True)]
        print(f"{split}: {len(split_labels):,} images")
    columns = ["split", "label", "count"]
    write_csv(PLOTS / "label_distribution.csv", columns, label_counts)
    shown = slice(size, size + plots.NUM_EXAMPLES)
    examples, titles = images[shown], [names[n] for n in labels[shown]]
    title = f"Training images of {info.dataset}"
    if p.augmentation.is_on:
        examples, titles = add_draws(examples, titles, p.augmentation.model_dump())
        title += ", each with eight random distortions"
    plots.draw_examples(PLOTS / "examples.png", examples, titles, title)


if __name__ == "__main__":
    run_stage(main)
