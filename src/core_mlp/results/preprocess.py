"""Rows of the CSVs that preprocess writes."""

from typing import NamedTuple


class LabelCount(NamedTuple):
    """A row of plots/label_distribution.csv: images of a class in a split."""

    split: str
    label: str
    count: int


class DataProblem(NamedTuple):
    """A row of plots/data_problems.csv: number of images with a problem, maybe 0.

    If the problem is missing classes, `count` is the number of classes.
    """

    split: str
    problem: str
    count: int
