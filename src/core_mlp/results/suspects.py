"""What `core-mlp suspects` keeps of each fold, and the rows of the CSV it writes."""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

# What a fold's process leaves in its copy of the project.
HELD_OUT = Path("held_out.npz")


class HeldOut(NamedTuple):
    """What a model says about M images that it has not seen.

    Attributes:
      names: `[M]` str, what people call the images.
      labels: `[M]` int64.
      probabilities: `[M, num_classes]` float32.
      contradicted: `[L, H, W, C]` uint8, the images to which the model gives another
        class than their label, in the same order.
      class_names: `[num_classes]` str.
    """

    names: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray
    contradicted: np.ndarray
    class_names: np.ndarray

    @property
    def is_contradicted(self) -> np.ndarray:
        """`[M]` bool: to which images the model gives another class."""
        return self.probabilities.argmax(axis=1) != self.labels

    def write(self, path: Path) -> None:
        """Writes the arrays as a .npz file."""
        np.savez(path, **self._asdict())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the arrays."""
        with np.load(path) as arrays:
            return cls(**arrays)


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
