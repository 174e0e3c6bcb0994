"""A figure of the most confident mistakes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core_mlp.evaluation.plots import draw_examples
from core_mlp.results.evaluate import Mistake

NUM_MISTAKES = 25


def draw_mistakes(path: Path, images: np.ndarray, mistakes: Sequence[Mistake]) -> None:
    """Draws the misclassified of `[N, H, W, C]` images with the highest confidence."""
    by_confidence = sorted(mistakes, key=lambda mistake: -mistake.confidence)
    shown = by_confidence[:NUM_MISTAKES]
    titles = [
        f"{mistake.label} predicted as {mistake.predicted}\n"
        + _format_confidence(mistake.confidence)
        for mistake in shown
    ]
    draw_examples(
        path,
        images[[mistake.index for mistake in shown]],
        titles,
        title=f"Most confident mistakes ({len(shown)} of {len(mistakes)})",
    )


def _format_confidence(confidence: float) -> str:
    return "over 99.99%" if confidence > 0.9999 else f"{confidence:.2%}"
