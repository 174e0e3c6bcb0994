"""Pictures of the model card, from CSVs in plots/."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from core_mlp.evaluation.plots import fixed_style, save_figure
from core_mlp.reporting.runs import Epoch

MAX_ANNOTATED_CLASSES = 30


@fixed_style
def draw_history(path: Path, history: Sequence[Epoch]) -> None:
    """Draws loss and accuracy of train and validation by epoch."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split in ("train", "validation"):
            values = [getattr(epoch, f"{split}_{metric}") for epoch in history]
            axes.plot([row.epoch for row in history], values, marker="o", label=split)
        unit = " (cross-entropy, nats)" if metric == "loss" else ""
        axes.set(title=metric.capitalize(), xlabel="epoch", ylabel=f"{metric}{unit}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    save_figure(path, figure)


@fixed_style
def draw_confusion(
    path: Path, confusion: Mapping[tuple[str, str], int], class_names: Sequence[str]
) -> None:
    """Draws the number of images of each pair of actual and predicted class, as rates.

    Each row, an actual class, sums to 1.
    """
    # Imported here because they take a second.
    import pandas as pd
    import seaborn as sns

    counts = pd.Series(confusion).unstack()
    rates = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    rates = rates.loc[class_names, class_names]
    size = max(5.0, 0.75 * len(class_names) + 1.5)
    figure = Figure(figsize=(size, 0.85 * size), layout="constrained")
    axes = figure.subplots()
    sns.heatmap(
        rates,
        # Mistakes are rare and would be invisible on a linear scale.
        norm=PowerNorm(0.4, vmin=0, vmax=1),
        cmap="Blues",
        square=True,
        annot=len(class_names) <= MAX_ANNOTATED_CLASSES,
        fmt=".3f",
        annot_kws={"fontsize": "small"},
        cbar_kws={"label": "rate within the actual class", "shrink": 0.8},
        ax=axes,
    )
    axes.set_title("Confusion on the test split, rows sum to 1")
    axes.set(xlabel="predicted", ylabel="actual")
    axes.tick_params(axis="y", rotation=0)
    if max(map(len, class_names)) > 3:
        axes.tick_params(axis="x", rotation=90)
    save_figure(path, figure)
