"""The LiteRT model, for phones and browsers."""

import shutil
from pathlib import Path

from ai_edge_litert.interpreter import Interpreter

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import atomic_output
from core_mlp.serving.answers import Classify

METADATA = "network.json"
MODEL = "model.tflite"


def convert(source: Path, folder: Path, *, quantize: bool) -> None:
    """Converts a SavedModel, to 8-bit weights if `quantize`; copies its metadata."""
    # Imported here because it takes seconds that an answer does not need.
    import tensorflow as tf

    from core_mlp.serving import saved_model

    converter = tf.lite.TFLiteConverter.from_saved_model(str(source))
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if quantize else []
    with atomic_output(folder) as partial:
        partial.mkdir()
        (partial / MODEL).write_bytes(converter.convert())
        shutil.copy(source / saved_model.METADATA, partial / METADATA)


def load_classifier(folder: Path) -> Classify:
    """Loads the signature `serving_default`; raises InputError if it cannot be."""
    try:
        interpreter = Interpreter(str(folder / MODEL))
        # LiteRT prints a message now, not with the first answer.
        interpreter.allocate_tensors()
    except ValueError as error:
        raise InputError(f"{folder / MODEL}: cannot be loaded: {error}") from error
    runner = interpreter.get_signature_runner("serving_default")
    return lambda images: runner(images=images)
