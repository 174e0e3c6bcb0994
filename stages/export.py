"""Exports the trained network as a SavedModel.

Reads models/checkpoint/. Writes models/saved_model/.
"""

from pathlib import Path

from core_mlp import checkpoints, serving
from core_mlp.errors import run_stage

CHECKPOINT = Path("models/checkpoint")
SAVED_MODEL = Path("models/saved_model")


def main() -> None:
    model, network = checkpoints.read_checkpoint(CHECKPOINT)
    classifier = serving.Classifier(model, network.image_shape)
    serving.save_classifier(SAVED_MODEL, classifier)
    print(f"Saved {SAVED_MODEL}; reloaded, it agrees with the trained model")


if __name__ == "__main__":
    run_stage(main)
