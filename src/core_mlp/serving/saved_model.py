"""The SavedModel: raw images in, classes and probabilities out."""

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from core_mlp.data.images import normalize_images
from core_mlp.pipeline.errors import InputError, first_line
from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.serving.answers import Classify

# TensorFlow's place for files that are not part of the graph.
METADATA = "assets.extra/network.json"


class Classifier(tf.Module):
    """A model together with the preprocessing that it was trained with.

    Attributes:
      classify: `tf.function` from `images`, `[N, H, W, C]` uint8, 0 to 255, to a dict
        of `classes`, `[N]` int64, and `probabilities`, `[N, num_classes]` float32.
        Images of another type or shape are an error.
    """

    def __init__(self, model: tf.Module, image_shape: Sequence[int]) -> None:
        """Wraps a model from `[N, H, W, C]` float32 images to logits."""
        super().__init__()
        self.model = model
        images = tf.TensorSpec([None, *image_shape], tf.uint8, name="images")
        self.classify = tf.function(self._classify, input_signature=[images])

    def _classify(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        # A loaded signature does not check shapes: without this, a transposed image, or
        # an RGB image in place of three gray ones, would be reshaped to fit.
        images = tf.ensure_shape(images, images.shape)
        logits = self.model(normalize_images(images))
        return {
            "classes": tf.argmax(logits, axis=1),
            "probabilities": tf.nn.softmax(logits),
        }


def save_classifier(folder: Path, classifier: Classifier, network: NetworkInfo) -> None:
    """Saves a SavedModel with the signature `serving_default`, and its metadata.

    In a new process the bytes depend on the model alone; a second save in the same
    process differs, because TensorFlow numbers its functions.
    """
    with atomic_output(folder, tf.errors.OpError) as partial:
        tf.saved_model.save(classifier, str(partial), signatures=classifier.classify)
        # This optional file contains a random identifier.
        (partial / "fingerprint.pb").unlink()
        network.write(partial / METADATA)


def load_classifier(folder: Path) -> Classify:
    """Loads the signature `serving_default` of a SavedModel.

    Raises:
      InputError: If it is missing or corrupt.
    """
    try:
        signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    # A corrupt graph makes TensorFlow raise almost anything.
    except Exception as error:
        raise InputError(f"{folder}: cannot be loaded: {first_line(error)}") from error

    def classify(images):
        answers = signature(images=tf.constant(images))
        return {name: values.numpy() for name, values in answers.items()}

    return classify
