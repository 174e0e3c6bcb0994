"""Hold out validation images and write every split as TFRecords.

Reads data/raw/ and its parameters. Writes data/tfrecords/train/,
data/tfrecords/validation/, data/tfrecords/test/, plots/label_distribution.csv,
plots/data_problems.csv, plots/examples.png and data/provenance/preprocess.json.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from core_mlp.data import arrays, soundness, splits, tfrecords
from core_mlp.data.borders import border_range
from core_mlp.evaluation import plots
from core_mlp.pipeline import params
from core_mlp.pipeline.files import atomic_output, write_csv
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.pipeline.stage import run_stage
from core_mlp.pipeline.text import first_names, visible
from core_mlp.results.preprocess import DataProblem, LabelCount

RAW = Path("data/raw")
RECORDS = Path("data/tfrecords")
PLOTS = Path("plots")


class Part(NamedTuple):
    """The examples of a split, as indices into arrays.

    Attributes:
      images: `[N, H, W, C]` uint8, memory-mapped.
      labels: `[N]` int64.
      summaries: `[N]` records, from `soundness.summarize_images`.
      files: `[N]` bytes, paths of the images' files; None if there are none.
      indices: `[M]` integers.
    """

    images: np.ndarray
    labels: np.ndarray
    summaries: np.ndarray
    files: np.ndarray | None
    indices: np.ndarray


def main() -> None:
    p = params.load_params(params.PreprocessParams)
    info, parts = divide(p)
    train = parts["train"]
    border = border_range(train.images, train.indices)
    # What models of these images need to know is in the train split.
    infos = dict.fromkeys(parts, info.model_copy(update={"drawing_side": None}))
    infos["train"] = info.model_copy(update={"border": border})
    names = info.class_names
    label_counts = []
    for split, part in parts.items():
        with atomic_output(RECORDS / split, tf.errors.OpError) as partial:
            tfrecords.write_split(
                partial,
                infos[split],
                part.images,
                part.labels,
                files=part.files,
                indices=part.indices,
            )
        counts = np.bincount(part.labels[part.indices], minlength=len(names))
        for name, count in zip(names, counts.tolist(), strict=True):
            label_counts.append(LabelCount(split, name, count))
        print(f"{split}: {len(part.indices):,} images")
    write_csv(PLOTS / "label_distribution.csv", label_counts, LabelCount)
    summaries = {split: part.summaries[part.indices] for split, part in parts.items()}
    problems = soundness.find_problems(summaries, names)
    write_csv(PLOTS / "data_problems.csv", problems, DataProblem)
    for row in problems:
        if row.count:
            print(f"warning: {row.split}: {row.count:,} {row.problem}")
    rare = soundness.rare_classes(train.labels[train.indices], names)
    if rare:
        named = visible(first_names(rare))
        print(
            f"warning: train: rarer than a tenth of the commonest class: {named}; see "
            "test_balanced_accuracy and class_weights"
        )
    shown = train.indices[: plots.NUM_EXAMPLES]
    plots.draw_examples(
        PLOTS / "examples.png",
        train.images[shown],
        titles=[names[label] for label in train.labels[shown]],
        title=f"Training images of {info.dataset}",
    )


def divide(p: params.PreprocessParams) -> tuple[SplitInfo, dict[str, Part]]:
    """Divides the examples into train, validation and test.

    The test split is the dataset's own, if it has one; then only the validation split
    is held out of train, and equal images may be in both.
    """
    info, images, labels = arrays.read_arrays(RAW / "train")
    files = arrays.read_files(RAW / "train")
    summaries = soundness.summarize_images(images, labels)
    has_test = (RAW / "test").exists()
    if has_test:
        keys = np.arange(len(labels))
        sizes = {"validation": p.validation_size}
    else:
        keys = summaries["hash"]
        sizes = {"test": p.test_size, "validation": p.validation_size}
    parts = {
        split: Part(images, labels, summaries, files, indices)
        for split, indices in splits.hold_out(keys, sizes).items()
    }
    if has_test:
        _, images, labels = arrays.read_arrays(RAW / "test")
        files = arrays.read_files(RAW / "test")
        summaries = soundness.summarize_images(images, labels)
        parts["test"] = Part(images, labels, summaries, files, np.arange(len(labels)))
    return info, {split: parts[split] for split in ("train", "validation", "test")}


if __name__ == "__main__":
    run_stage(main)
