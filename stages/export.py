"""Export the trained MLP as a SavedModel and as a LiteRT model.

Reads models/checkpoint/ and its parameters. Writes models/saved_model/, models/litert/
and data/provenance/export.json.
"""

from pathlib import Path

from core_mlp.pipeline import params
from core_mlp.pipeline.stage import run_stage
from core_mlp.serving import litert, saved_model
from core_mlp.training import checkpoints

CHECKPOINT = Path("models/checkpoint")
SAVED_MODEL = Path("models/saved_model")
LITERT = Path("models/litert")


def main() -> None:
    p = params.load_params(params.ExportParams)
    model, network = checkpoints.read_checkpoint(CHECKPOINT)
    classifier = saved_model.Classifier(model, network.image_shape)
    saved_model.save_classifier(SAVED_MODEL, classifier, network)
    litert.convert(SAVED_MODEL, LITERT, quantize=p.quantize)
    print(f"Saved {SAVED_MODEL} and {LITERT}")


if __name__ == "__main__":
    run_stage(main)
