"""Drawings from arrays, as PNG."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context, rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from core_mlp.outputs import replacing

DPI = 120
# Whatever the user's matplotlibrc says; a dollar sign in a class name is no formula.
fixed_style = rc_context(dict(rcParamsDefault) | {"text.parse_math": False})


@fixed_style
def draw_examples(
    path: Path, images: np.ndarray, titles: Sequence[str], *, columns: int, title: str
) -> None:
    """Draws images in a grid, each with a title.

    Args:
      path: The PNG to write.
      images: `[N, H, W, C]` uint8; one channel is drawn as grey, three as RGB.
      titles: N texts.
      columns: Of the grid.
      title: Of the whole figure.
    """
    rows = max(1, math.ceil(len(images) / columns))
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows + 0.6), layout="constrained")
    figure.suptitle(title)
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes:
        axes.set_axis_off()
    for axes, image, text in zip(all_axes, images, titles, strict=False):
        axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_title(text, fontsize="small")
    _save(figure, path)


@fixed_style
def draw_label_distribution(
    path: Path, splits: Sequence[str], class_names: Sequence[str], counts: np.ndarray
) -> None:
    """Draws the number of images of each class, a panel a split.

    Args:
      path: The PNG to write.
      splits: Names of the splits.
      class_names: Names of the classes.
      counts: `[num_splits, num_classes]` int.
    """
    figure = Figure(figsize=(4 * len(splits), 4), layout="constrained")
    figure.suptitle("Images of each label, each split on a scale of its own")
    for axes, split, row in zip(
        figure.subplots(1, len(splits), squeeze=False).flat, splits, counts, strict=True
    ):
        axes.bar(class_names, row, color="steelblue")
        axes.set(title=f"{split}: {row.sum():,}", xlabel="label", ylabel="images")
        _tilt_long_labels(axes, class_names)
    _save(figure, path)


@fixed_style
def draw_history(path: Path, history: Sequence) -> None:
    """Draws loss and accuracy of both splits over the epochs.

    Args:
      path: The PNG to write.
      history: `training.EpochMetrics` of each epoch.
    """
    epochs = [metrics.epoch for metrics in history]
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split in ("train", "validation"):
            values = [getattr(metrics, f"{split}_{metric}") for metrics in history]
            axes.plot(epochs, values, marker="o", label=split)
        unit = " (cross-entropy, nats)" if metric == "loss" else ""
        axes.set(title=metric.capitalize(), xlabel="epoch", ylabel=f"{metric}{unit}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


@fixed_style
def draw_confusion(path: Path, counts: np.ndarray, class_names: Sequence[str]) -> None:
    """Draws a confusion matrix, each row as shares of its true class.

    Args:
      path: The PNG to write.
      counts: `[num_classes, num_classes]` int; a row is a true class.
      class_names: Names of the classes.
    """
    # Here, because no other figure needs it: it takes a second to import.
    import seaborn as sns

    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    size = max(5.0, 0.75 * len(class_names) + 1.5)
    figure = Figure(figsize=(size, 0.85 * size), layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        shares,
        # Mistakes are rare: on an even scale none of them would be seen.
        norm=PowerNorm(0.4, vmin=0, vmax=1),
        cmap="Blues",
        square=True,
        annot=len(class_names) <= 30,
        fmt=".3f",
        annot_kws={"fontsize": "small"},
        cbar_kws={"label": "share of the true class", "shrink": 0.8},
        xticklabels=list(class_names),
        yticklabels=list(class_names),
        ax=axes,
    )
    axes.set(
        title="Confusion on the test split, rows sum to 1",
        xlabel="predicted",
        ylabel="actual",
    )
    axes.tick_params(axis="y", rotation=0)
    _tilt_long_labels(axes, class_names)
    _save(figure, path)


def _tilt_long_labels(axes: Axes, names: Sequence[str]) -> None:
    """Tilts the labels of the horizontal axis where they would overlap."""
    if max(map(len, names)) > 3:
        axes.tick_params(axis="x", rotation=90)


def _save(figure: Figure, path: Path) -> None:
    """Writes a figure; the same drawing gives the same bytes."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=DPI)
