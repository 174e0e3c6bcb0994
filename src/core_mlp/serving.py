"""The model as it is shipped: raw images in, classes and probabilities out."""

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

from core_mlp.errors import InputError
from core_mlp.images import normalise_images
from core_mlp.layers import MLP
from core_mlp.reports import make_folder

NUM_CHECK_IMAGES = 256


class Classifier(tf.Module):
    """A model together with the normalisation that it was trained with.

    Attributes:
      classify: `tf.function` from `images`, `[N, H, W, C]` uint8 of 0 to 255, to a
        dict of `classes`, `[N]` int64, and `probabilities`, `[N, num_classes]`
        float32. Another type or shape is an error.
    """

    def __init__(self, model: MLP, image_shape: Sequence[int]) -> None:
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
        # A loaded signature does not compare shapes by itself: a transposed image, or
        # an RGB image as three grey ones, would be reshaped to fit.
        images = tf.ensure_shape(images, images.shape)
        logits = self.model(normalise_images(images))
        return {
            "classes": tf.argmax(logits, axis=1),
            "probabilities": tf.nn.softmax(logits),
        }


def save_classifier(folder: Path, classifier: Classifier) -> None:
    """Saves a SavedModel with the signature `serving_default`.

    The bytes depend on the model alone, if this is the first save of the process:
    TensorFlow numbers its functions through.

    Args:
      folder: Is made, in place of what was there.
      classifier: The model to save.

    Raises:
      RuntimeError: If the saved model does not agree with the one in memory.
    """
    make_folder(folder)
    tf.saved_model.save(classifier, str(folder), signatures=classifier.classify)
    _fix_fingerprint(folder / "fingerprint.pb")

    spec = classifier.classify.input_signature[0]
    images = np.random.default_rng(0).integers(
        0, 256, [NUM_CHECK_IMAGES, *spec.shape[1:]], np.uint8
    )
    expected = classifier.classify(tf.constant(images))
    reloaded = load_classifier(folder)(images=tf.constant(images))
    if not (
        np.array_equal(reloaded["classes"], expected["classes"])
        and np.allclose(reloaded["probabilities"], expected["probabilities"])
    ):
        raise RuntimeError(f"{folder}: differs from the model that was saved.")


def load_classifier(folder: Path) -> Callable[..., dict[str, tf.Tensor]]:
    """Loads the signature `serving_default` of a SavedModel.

    Returns:
      A function from the keyword `images` to a dict; see `Classifier.classify`.

    Raises:
      InputError: If there is no SavedModel of that signature.
    """
    try:
        signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        problem = str(error).strip().splitlines()[0]
        raise InputError(f"{folder}: cannot be loaded: {problem}") from error
    inputs = set(signature.structured_input_signature[1])
    outputs = set(signature.structured_outputs)
    if inputs != {"images"} or outputs != {"classes", "probabilities"}:
        raise InputError(
            f"{folder}: has inputs {sorted(inputs)} and outputs {sorted(outputs)}; "
            "expected images, and classes and probabilities"
        )
    return signature


def _fix_fingerprint(path: Path) -> None:
    """Replaces the random uuid of a SavedModel by one derived from its hashes."""
    fingerprint = FingerprintDef.FromString(path.read_bytes())
    fingerprint.ClearField("uuid")
    content = fingerprint.SerializeToString(deterministic=True)
    fingerprint.uuid = str(uuid.uuid5(uuid.NAMESPACE_OID, content.hex()))
    path.write_bytes(fingerprint.SerializeToString(deterministic=True))
