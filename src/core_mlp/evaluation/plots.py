"""Figures as PNG, with reproducible bytes."""

import functools
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context, rcParamsDefault
from matplotlib.figure import Figure
from PIL import Image

from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.text import visible

DPI = 120
NUM_EXAMPLES = 9
TITLE_WIDTH = 20  # Characters above an image.
MAX_TITLE_LINES = 3
MAX_TITLE = 100
# Size of a figure's file; a larger one gets a palette.
MAX_FIGURE_BYTES = 900_000
PALETTE_COLORS = 255
Draw = Callable[..., None]


def fixed_style(draw: Draw) -> Draw:
    """Makes a drawing function independent of the user's matplotlibrc.

    A dollar sign in a class name is shown as it is.
    """

    @functools.wraps(draw)
    def draw_with_style(*arguments: Any, **keywords: Any) -> None:
        style = dict(rcParamsDefault) | {"text.parse_math": False}
        with rc_context(style), warnings.catch_warnings():
            # A character that the font lacks becomes a box; a long name is cut off.
            warnings.filterwarnings("ignore", message=".*Glyph.*missing")
            warnings.filterwarnings("ignore", message="constrained_layout not applied")
            return draw(*arguments, **keywords)

    return draw_with_style


@fixed_style
def draw_examples(
    path: Path, images: np.ndarray, titles: Sequence[str], title: str
) -> None:
    """Draws `[N, H, W, C]` uint8 images in a square grid, each under its title.

    One channel is drawn in gray, three as RGB.
    """
    columns = math.ceil(math.sqrt(max(1, len(images))))
    rows = max(1, math.ceil(len(images) / columns))
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows + 0.6), layout="constrained")
    figure.suptitle(shorten(title, MAX_TITLE))
    bare = {"xticks": [], "yticks": []}  # Even hidden ticks take time.
    all_axes = figure.subplots(rows, columns, squeeze=False, subplot_kw=bare).ravel()
    for axes in all_axes:
        axes.set_axis_off()
    for axes, image, text in zip(all_axes, images, titles, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        lines = [wrap_title(line) for line in text.split("\n")]
        axes.set_title("\n".join(lines), fontsize="small")
    save_figure(path, figure)


def wrap_title(text: str) -> str:
    """Wraps a line above an image; cuts it where it would take too much room."""
    return textwrap.fill(
        visible(text), TITLE_WIDTH, max_lines=MAX_TITLE_LINES, placeholder=" …"
    )


def shorten(text: str, length: int) -> str:
    """Shortens a text to at most `length` characters, all of them visible.

    >>> shorten("abcdef", 4), shorten("abc", 4)
    ('abc…', 'abc')
    """
    text = visible(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def save_figure(path: Path, figure: Figure) -> None:
    """Writes a figure as PNG, with a palette if it would be too large for Git."""
    with atomic_output(path) as partial:
        figure.savefig(partial, dpi=DPI, format="png")
        if partial.stat().st_size > MAX_FIGURE_BYTES:
            with Image.open(partial) as image:
                picture = image.convert("RGB")
            while partial.stat().st_size > MAX_FIGURE_BYTES:
                colors = picture.quantize(PALETTE_COLORS)
                colors.save(partial, format="png", optimize=True)
                picture = picture.reduce(2)
