"""Rows of the CSV that `core-mlp seeds` and `core-mlp decide` write."""

from typing import NamedTuple


class SeedResult(NamedTuple):
    """A row of plots/seeds.csv: a metric of one seed, with its summary over all seeds.

    `low` and `high` are the ends of the interval of the mean: NaN if there are too few
    seeds for one.
    """

    metric: str
    seed: int
    value: float
    mean: float
    low: float
    high: float
