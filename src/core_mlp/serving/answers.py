"""The answers of an exported model, a SavedModel or a LiteRT model, to images."""

from collections.abc import Callable

import numpy as np

from core_mlp.data.batches import evaluation_batch_size

# From `[N, H, W, C]` uint8 images, 0 to 255, to a dict of `classes`, `[N]` int64, and
# `probabilities`, `[N, num_classes]` float32.
Classify = Callable[[np.ndarray], dict[str, np.ndarray]]


def predict(classify: Classify, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classifies `[N, H, W, C]` uint8 images in batches, with a loaded model.

    Returns:
      `[N]` int64 classes and `[N, num_classes]` float32 probabilities.
    """
    batch_size = evaluation_batch_size(images.shape[1:])
    batches = [
        classify(images[start : start + batch_size])
        for start in range(0, len(images), batch_size)
    ]
    classes = np.concatenate([batch["classes"] for batch in batches])
    probabilities = np.concatenate([batch["probabilities"] for batch in batches])
    return classes, probabilities
