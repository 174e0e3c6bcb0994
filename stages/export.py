"""Export the trained MLP as a SavedModel.

Reads models/checkpoint/. Writes models/saved_model/.
"""

from pathlib import Path

from core_mlp.pipeline.stage import run_stage
from core_mlp.serving import saved_model
from core_mlp.training import checkpoints

CHECKPOINT = Path("models/checkpoint")
SAVED_MODEL = Path("models/saved_model")


def main() -> None:
    model, network = checkpoints.read_checkpoint(CHECKPOINT)
    classifier = saved_model.Classifier(model, network.image_shape)
    saved_model.save_classifier(SAVED_MODEL, classifier)
    print(f"Saved {SAVED_MODEL}")


if __name__ == "__main__":
    run_stage(main)
