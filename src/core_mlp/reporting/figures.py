"""Draws the pictures of the model card from CSVs in plots/."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from core_mlp.evaluation.plots import fixed_style, save_figure, shorten
from core_mlp.results.train import EpochResult

MAX_CLASSES = 30
MAX_LABEL = 25  # Characters of the name of a class.


@fixed_style
def draw_history(path: Path, history: Sequence[EpochResult]) -> None:
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
    """Draws how often each actual class is predicted as each class.

    If there are more than MAX_CLASSES classes, the most confused are drawn.
    """
    # Imported here because they take a second.
    import pandas as pd
    import seaborn as sns

    totals = Counter()
    for (actual, _), count in confusion.items():
        totals[actual] += count
    names = most_confused_classes(confusion, class_names)
    rates = pd.DataFrame(
        [[confusion.get((a, p), 0) / max(1, totals[a]) for p in names] for a in names],
        index=pd.Index(names, name="actual"),
        columns=pd.Index(names, name="predicted"),
    )
    # Each of the first 10 rows takes 0.75 inches, each further row less.
    size = max(5.0, 0.75 * min(len(names), 10) + 0.3 * max(0, len(names) - 10) + 1.5)
    labels = [shorten(name, MAX_LABEL) for name in names]
    figure = Figure(figsize=(size, 0.85 * size), layout="constrained")
    # Without a canvas, seaborn would make one of full size for each label.
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    sns.heatmap(
        rates,
        # Mistakes are rare and would be invisible on a linear scale.
        norm=PowerNorm(0.4, vmin=0, vmax=1),
        cmap="Blues",
        square=True,
        mask=rates == 0.0,
        annot=True,
        fmt=".3f",
        annot_kws={"fontsize": "small" if len(names) <= 10 else "xx-small"},
        xticklabels=labels,
        yticklabels=labels,
        cbar_kws={"label": "rate within the actual class", "shrink": 0.8},
        ax=axes,
    )
    title = "Confusion on the test split, rows sum to 1"
    if len(names) < len(class_names):
        title = f"The {len(names)} most confused of {len(class_names)} classes"
    axes.set_title(title)
    axes.set(xlabel="predicted", ylabel="actual")
    axes.tick_params(axis="y", rotation=0)
    if max(map(len, labels)) > 3:
        axes.tick_params(axis="x", rotation=90)
    save_figure(path, figure)


def most_confused_classes(
    confusion: Mapping[tuple[str, str], int], class_names: Sequence[str]
) -> list[str]:
    """Returns the MAX_CLASSES classes with the most mistakes, in the order of labels.

    A mistake counts for both of its classes.
    """
    mistakes = Counter()
    for (actual, predicted), count in confusion.items():
        if actual != predicted:
            mistakes[actual] += count
            mistakes[predicted] += count
    ranked = sorted(class_names, key=lambda name: -mistakes[name])
    return sorted(ranked[:MAX_CLASSES], key=list(class_names).index)
