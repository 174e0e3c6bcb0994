"""Hold out validation images and write every split as TFRecords.

Reads data/raw/ and the parameters augmentation, test_size, validation_size. Writes
data/tfrecords/train/, data/tfrecords/validation/, data/tfrecords/test/,
plots/label_distribution.csv, plots/data_problems.csv, plots/examples.png and
data/provenance/preprocess.json.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from core_mlp.data import tfrecords
from core_mlp.evaluation import plots
from core_mlp.pipeline import params
from core_mlp.pipeline.files import atomic_output, write_csv
from core_mlp.pipeline.stage import run_stage
from core_mlp.sources import arrays, soundness
from core_mlp.training.augmentation import add_draws

RAW, RECORDS, PLOTS = map(Path, ("data/raw", "data/tfrecords", "plots"))


def main() -> None:
    p = params.load_params(params.PreprocessParams)
    info, images, labels = arrays.read_arrays(RAW / "train")
    facts, names = soundness.examine(images, labels), info.class_names
    has_test = (RAW / "test").exists()
    keys = np.arange(len(labels)) if has_test else facts["hash"]
    sizes = {} if has_test else {"test": p.test_size}
    parts = soundness.hold_out(keys, sizes | {"validation": p.validation_size})
    splits = {s: (images, labels, part, facts[part]) for s, part in parts.items()}
    if has_test:
        test = arrays.read_arrays(RAW / "test")[1:]
        splits["test"] = *test, None, soundness.examine(*test)
    label_counts = []
    for split in ("train", "validation", "test"):
        split_images, split_labels, part, split_facts = splits[split]
        with atomic_output(RECORDS / split, tf.errors.OpError) as partial:
            tfrecords.write_split(partial, split_images, split_labels, info, part)
        counts = np.bincount(split_facts["label"], minlength=len(names))
        label_counts += [(split, *row) for row in zip(names, counts, strict=True)]
        print(f"{split}: {len(split_facts):,} images")
    columns = ["split", "label", "count"]
    write_csv(PLOTS / "label_distribution.csv", columns, label_counts)
    problems = soundness.find_problems({s: v[-1] for s, v in splits.items()}, names)
    write_csv(PLOTS / "data_problems.csv", soundness.COLUMNS, problems)
    for split, problem, count in (row for row in problems if row[-1]):
        print(f"warning: {split}: {count:,} {problem}")
    shown = parts["train"][: plots.NUM_EXAMPLES]
    examples, titles = images[shown], [names[n] for n in labels[shown]]
    title = f"Training images of {info.dataset}"
    if p.augmentation.is_on:
        examples, titles = add_draws(examples, titles, p.augmentation.model_dump())
        title += ", each with eight random distortions"
    plots.draw_examples(PLOTS / "examples.png", examples, titles, title)


if __name__ == "__main__":
    run_stage(main)
