"""The SavedModel: raw images in, classes and probabilities out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from core_mlp.data.images import normalize_images
from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.stage import InputError

NUM_CHECK_IMAGES = 256
BATCH_SIZE = 1000


class Classifier(tf.Module):
    """A model together with the preprocessing that it was trained with.

    Attributes:
      classify: `tf.function` from `images`, `[N, H, W, C]` uint8, 0 to 255, to a dict
        of `classes`, `[N]` int64, and `probabilities`, `[N, num_classes]` float32.
        Images of another type or shape are an error.
    """

    def __init__(self, model: tf.Module, image_shape: Sequence[int]) -> None:
        """Wraps a model.

        Args:
          model: Maps `[N, H * W * C]` float32 to logits `[N, num_classes]`.
          image_shape: Height, width and channels.
        """
        super().__init__()
        self.model = model
        self.classify = tf.function(
            self._classify,
            input_signature=[
                tf.TensorSpec([None, *image_shape], tf.uint8, name="images")
            ],
        )

    def _classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        # A loaded signature does not check shapes: without this, a transposed image, or
        # an RGB image in place of three gray ones, would be reshaped to fit.
        images = tf.ensure_shape(images, images.shape)
        logits = self.model(normalize_images(images))
        return {
            "classes": tf.argmax(logits, axis=1),
            "probabilities": tf.nn.softmax(logits),
        }


def save_classifier(folder: Path, classifier: Classifier) -> None:
    """Saves a SavedModel with the signature `serving_default`.

    In a new process the bytes depend on the model alone; a second save in the same
    process differs, because TensorFlow numbers its functions.

    Args:
      folder: Is created, replacing an earlier SavedModel.
      classifier: The model to save.

    Raises:
      RuntimeError: If the reloaded model does not agree with the one in memory.
    """
    with atomic_output(folder, tf.errors.OpError) as partial:
        tf.saved_model.save(classifier, str(partial), signatures=classifier.classify)
        # Optional, and it holds a random identifier.
        (partial / "fingerprint.pb").unlink()
        image_shape = classifier.classify.input_signature[0].shape[1:].as_list()
        images = np.random.default_rng(0).integers(
            0, 256, [NUM_CHECK_IMAGES, *image_shape], np.uint8
        )
        expected = classifier.classify(tf.constant(images))
        num_classes = expected["probabilities"].shape[1]
        reloaded = load_classifier(partial, image_shape, num_classes)(
            images=tf.constant(images)
        )
        if not (
            np.array_equal(reloaded["classes"], expected["classes"])
            and np.allclose(reloaded["probabilities"], expected["probabilities"])
        ):
            raise RuntimeError(f"{folder}: differs from the model that was saved.")


def load_classifier(
    folder: Path, image_shape: Sequence[int], num_classes: int
) -> Callable[..., dict[str, tf.Tensor]]:
    """Loads the signature `serving_default` of a SavedModel.

    Args:
      folder: The SavedModel.
      image_shape: Expected height, width and channels.
      num_classes: Expected number of classes.

    Returns:
      A function from the keyword argument `images` to a dict, as `Classifier.classify`.

    Raises:
      InputError: If it is missing, corrupt, or has another signature.
    """
    try:
        signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    # A corrupt graph makes TensorFlow raise almost anything.
    except Exception as error:
        problem = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{folder}: cannot be loaded: {problem}") from error
    specs = signature.structured_input_signature[1] | signature.structured_outputs
    found = {
        name: f"{spec.dtype.name} {spec.shape.as_list()}"
        for name, spec in specs.items()
    }
    expected = {
        "images": f"uint8 {[None, *image_shape]}",
        "classes": f"int64 {[None]}",
        "probabilities": f"float32 {[None, num_classes]}",
    }
    if found != expected:
        raise InputError(f"{folder}: its signature is {found}; expected {expected}")
    return signature


def predict(
    classify: Callable[..., dict[str, tf.Tensor]], images: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Classifies any number of images, in batches.

    Args:
      classify: From `load_classifier`.
      images: `[N, H, W, C]` uint8, 0 to 255.

    Returns:
      `[N]` int64 classes and `[N, num_classes]` float32 probabilities.
    """
    batches = [
        classify(images=tf.constant(images[start : start + BATCH_SIZE]))
        for start in range(0, len(images), BATCH_SIZE)
    ]
    return tuple(
        np.concatenate([batch[key] for batch in batches])
        for key in ("classes", "probabilities")
    )
