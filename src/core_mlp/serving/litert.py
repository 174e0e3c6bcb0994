"""The LiteRT model, for phones and browsers."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import atomic_output
from core_mlp.serving.saved_model import METADATA

MODEL = "model.tflite"


def convert(saved_model: Path, folder: Path, *, quantize: bool) -> None:
    """Converts a SavedModel, to 8-bit weights if `quantize`; copies its metadata."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if quantize else []
    with atomic_output(folder) as partial:
        partial.mkdir()
        (partial / MODEL).write_bytes(converter.convert())
        shutil.copy(saved_model / METADATA, partial)


def load_classifier(folder: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Loads `serving_default` as a function, as `saved_model.load_classifier` does."""
    try:
        interpreter = Interpreter(str(folder / MODEL))
    except ValueError as error:
        raise InputError(f"{folder / MODEL}: cannot be loaded: {error}") from error
    runner = interpreter.get_signature_runner("serving_default")
    return lambda images: runner(images=np.asarray(images))
