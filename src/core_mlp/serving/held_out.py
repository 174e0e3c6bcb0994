"""Trains on all folds but one, and answers about the images of that one.

    python -m core_mlp.serving.held_out NUMBER NUM_FOLDS

Runs in a copy of the project and replaces its splits: validation becomes the fold, and
train the other folds. Then it runs the stage train, which uses the fold like any
validation split (with `patience`, it chooses the epoch). The answers are in
held_out.npz.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from core_mlp.pipeline.environment import SOURCE
from core_mlp.pipeline.errors import exit_on_input_error
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.pipeline.text import print_any_text
from core_mlp.results.suspects import HELD_OUT, HeldOut, find_kept

TRAIN = Path("data/tfrecords/train")
VALIDATION = Path("data/tfrecords/validation")
CHECKPOINT = Path("models/checkpoint")


def main() -> None:
    number, num_folds = map(int, sys.argv[1:])
    print_any_text()
    make_splits()
    # As for a stage, before TensorFlow is loaded.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    from core_mlp.data.folds import hold_out_fold
    from core_mlp.training.device import set_up_device

    set_up_device()
    with exit_on_input_error():
        num_train = SplitInfo.read(TRAIN / "info.json").num_examples
        indices = hold_out_fold(TRAIN, VALIDATION, number=number, num_folds=num_folds)
        train()
        by_index = [name_image(index, num_train) for index in indices.tolist()]
        answer(by_index).write(HELD_OUT)


def make_splits() -> None:
    """Runs fetch and preprocess, if DVC does not have their outputs."""
    from dvc.cli import main as run_dvc

    # A clone lacks the data that was added to DVC, and `dvc repro` does not restore it.
    added = sorted(map(str, SOURCE.glob("*.dvc")))
    if added and (code := run_dvc(["checkout", "--quiet", *added])):
        sys.exit(code)
    if code := run_dvc(["repro", "preprocess"]):
        sys.exit(code)


def train() -> None:
    """Runs the stage train; it says itself what goes wrong."""
    command = [sys.executable, "-m", "stages.train"]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


def name_image(index: int, num_train: int) -> str:
    """Names an image by its split and its index in that split.

    >>> name_image(3, num_train=10), name_image(12, num_train=10)
    ('train 3', 'validation 2')

    Args:
      index: Into the splits train and validation, one after the other.
      num_train: How many images train has.
    """
    if index < num_train:
        return f"train {index}"
    return f"validation {index - num_train}"


def answer(by_index: list[str]) -> HeldOut:
    """Asks the checkpoint about the images of the validation split.

    Args:
      by_index: What to call each image if it has no file.
    """
    import tensorflow as tf

    from core_mlp.data import tfrecords
    from core_mlp.serving import answers, saved_model
    from core_mlp.training import checkpoints

    info = SplitInfo.read_split(VALIDATION)
    images, labels = tfrecords.read_split(VALIDATION, info)
    model, network = checkpoints.read_checkpoint(CHECKPOINT)
    classifier = saved_model.Classifier(model, network.image_shape)

    def classify(batch: np.ndarray) -> dict[str, np.ndarray]:
        found = classifier.classify(tf.constant(batch))
        return {name: values.numpy() for name, values in found.items()}

    _, probabilities = answers.predict(classify, images)
    kept = find_kept(labels, probabilities)
    return HeldOut(
        names=np.array(tfrecords.read_files(VALIDATION, info) or by_index),
        labels=labels,
        probabilities=probabilities,
        kept=kept,
        images=images[kept],
        class_names=np.array(info.class_names),
    )


if __name__ == "__main__":
    main()
