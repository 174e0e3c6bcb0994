"""Rows of the CSVs that evaluate writes."""

from typing import NamedTuple


class Confusion(NamedTuple):
    """A row of plots/confusion.csv: test images by actual and predicted class."""

    actual: str
    predicted: str
    count: int


class ClassAccuracy(NamedTuple):
    """A row of plots/per_class.csv: accuracy with the ends of its 95 % interval."""

    label: str
    accuracy: float
    error_rate: float
    count: int
    low: float
    high: float


class CalibrationBin(NamedTuple):
    """A row of plots/calibration.csv: the examples within one bin of confidence."""

    confidence: float
    accuracy: float
    count: int


class Mistake(NamedTuple):
    """A row of plots/mistakes.csv: a misclassified image by its index in the split.

    `file` is its path in the dataset's folder, if that is a folder of images.
    """

    index: int
    label: str
    predicted: str
    confidence: float
    file: str | None = None

    @property
    def image(self) -> str:
        """The image's index and, if it has one, its file."""
        return f"{self.index}: {self.file}" if self.file else str(self.index)
