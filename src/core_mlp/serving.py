"""The model as it is shipped: raw images in, classes and probabilities out."""

import hashlib
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf.fingerprint_pb2 import FingerprintDef

from core_mlp.errors import InputError
from core_mlp.images import normalise_images
from core_mlp.layers import MLP
from core_mlp.outputs import replacing

FINGERPRINT = "fingerprint.pb"
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
    with replacing(folder, tf.errors.OpError) as partial:
        tf.saved_model.save(classifier, str(partial), signatures=classifier.classify)
        _fix_fingerprint(partial)

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
      image_shape: Height, width and channels that it must take.
      num_classes: That it must tell apart.

    Returns:
      A function from the keyword `images` to a dict; see `Classifier.classify`.

    Raises:
      InputError: If it is damaged, or of another signature.
      OSError: If a file cannot be read.
    """
    # First: TensorFlow checks the variables only, and a damaged graph makes it raise
    # anything, or loads.
    fingerprint, content_uuid = _read_fingerprint(folder)
    if fingerprint.uuid != content_uuid:
        raise InputError(
            f"{folder}: damaged, or not written by export: {FINGERPRINT} is of other "
            "files"
        )
    try:
        signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    except (OSError, KeyError, ValueError, tf.errors.OpError) as error:
        problem = str(error).strip().splitlines()[0]
        raise InputError(f"{folder}: cannot be loaded: {problem}") from error
    specs = signature.structured_input_signature[1] | signature.structured_outputs
    found = {name: _describe(spec) for name, spec in specs.items()}
    expected = {
        "images": f"uint8 {[None, *image_shape]}",
        "classes": f"int64 {[None]}",
        "probabilities": f"float32 {[None, num_classes]}",
    }
    if found != expected:
        raise InputError(f"{folder}: its signature is {found}; expected {expected}")
    return signature


def _describe(spec: tf.TensorSpec) -> str:
    return f"{spec.dtype.name} {spec.shape.as_list()}"


def _fix_fingerprint(folder: Path) -> None:
    """Replaces the random uuid of a SavedModel by one derived from its content."""
    fingerprint, content_uuid = _read_fingerprint(folder)
    fingerprint.uuid = content_uuid
    (folder / FINGERPRINT).write_bytes(
        fingerprint.SerializeToString(deterministic=True)
    )


def _read_fingerprint(folder: Path) -> tuple[FingerprintDef, str]:
    """Returns the fingerprint of a SavedModel, and a uuid derived from its content."""
    path = folder / FINGERPRINT
    try:
        fingerprint = FingerprintDef.FromString(path.read_bytes())
    except DecodeError as error:
        raise InputError(f"{path}: {error}") from error
    without_uuid = FingerprintDef()
    without_uuid.CopyFrom(fingerprint)
    without_uuid.ClearField("uuid")
    digest = hashlib.sha256(without_uuid.SerializeToString(deterministic=True))
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != FINGERPRINT:
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return fingerprint, str(uuid.uuid5(uuid.NAMESPACE_OID, digest.hexdigest()))
