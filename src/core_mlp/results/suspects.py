"""What `core-mlp suspects` keeps of each fold, and the rows of the CSV it writes."""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

# What a fold's process leaves in its copy of the project.
HELD_OUT = Path("held_out.npz")
# The page shows so many pictures, so no fold has to keep more.
MAX_SHOWN = 200


class HeldOut(NamedTuple):
    """What a model says about M images that it has not seen.

    Attributes:
      names: `[M]` str, what people call the images.
      labels: `[M]` int64.
      probabilities: `[M, num_classes]` float32.
      kept: `[L]` int64, indices of the images that are kept, see `find_kept`.
      images: `[L, H, W, C]` uint8, these images.
      class_names: `[num_classes]` str.
    """

    names: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    kept: np.ndarray
    images: np.ndarray
    class_names: np.ndarray

    @property
    def is_contradicted(self) -> np.ndarray:
        """`[M]` bool: to which images the model gives another class."""
        return self.probabilities.argmax(axis=1) != self.labels

    def image_of(self, index: int) -> np.ndarray:
        """Returns an image that is kept, `[H, W, C]` uint8, by its index."""
        return self.images[self.kept.tolist().index(index)]

    def write(self, path: Path) -> None:
        """Writes the arrays as a .npz file."""
        np.savez(path, **self._asdict())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the arrays."""
        with np.load(path) as arrays:
            return cls(**arrays)


def find_kept(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Finds the images of one fold that may be among the first MAX_SHOWN suspects.

    These are contradicted: the model gives them another class than their label. The
    less probable the label, the more suspicious. Where several are as probable as the
    last one, all are kept.

    Args:
      labels: `[M]` integers.
      probabilities: `[M, num_classes]` floats.

    Returns:
      Their indices, `[L]` int64, in ascending order.
    """
    contradicted = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    of_labels = probabilities[contradicted, labels[contradicted]]
    last = np.sort(of_labels)[:MAX_SHOWN].max(initial=0.0)
    return contradicted[of_labels <= last]


class Suspect(NamedTuple):
    """A row of suspects.csv: an image whose label is contradicted with confidence.

    Attributes:
      file: What people call the image.
      label: Its class.
      predicted: The class that a model gives it that has not seen it.
      confidence: The probability of that class, says the model.
      label_confidence: The probability of its label.
    """

    file: str
    label: str
    predicted: str
    confidence: float
    label_confidence: float
