"""The LiteRT model, for phones, browsers and microcontrollers: a file of its own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.stage import InputError
from core_mlp.serving.saved_model import METADATA

MODEL = "model.tflite"
SIGNATURE = "serving_default"


def convert(saved_model: Path, folder: Path, *, quantize: bool) -> None:
    """Converts a SavedModel; equal models give equal bytes.

    Args:
      saved_model: From `saved_model.save_classifier`.
      folder: Is written: the model and a copy of its metadata.
      quantize: Whether to store weights as 8-bit integers with a scale per unit
        (dynamic-range quantization), a quarter of the size.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(saved_model), signature_keys=[SIGNATURE]
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT] if quantize else []
    with atomic_output(folder) as partial:
        partial.mkdir()
        (partial / MODEL).write_bytes(converter.convert())
        shutil.copyfile(saved_model / METADATA, partial / Path(METADATA).name)


def load_classifier(folder: Path) -> Callable[..., dict[str, np.ndarray]]:
    """Loads the signature `serving_default` of a LiteRT model.

    Returns:
      A function from the keyword argument `images` to a dict, as `Classifier.classify`.

    Raises:
      InputError: If it is missing or corrupt.
    """
    path = folder / MODEL
    try:
        runner = Interpreter(str(path)).get_signature_runner(SIGNATURE)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be loaded: {error}") from error
    return lambda images: runner(images=np.asarray(images))
