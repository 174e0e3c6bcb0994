"""Answers about pictures: prepares image files as in training and classifies them."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from scipy.ndimage import center_of_mass

from core_mlp.pipeline.files import DECIMALS
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.pipeline.stage import InputError
from core_mlp.serving import saved_model
from core_mlp.sources.image_files import border, read_image, resize_image

MAX_SHOWN = 100
MID_GRAY = 127.5
MIN_CONTRAST, MIN_INK = 16, 0.25  # Fainter strokes are paper: gray levels, fraction.
# The signature of a SavedModel, and the metadata that was exported with it.
Model = tuple[Callable, NetworkInfo]


def load_model(folder: Path) -> Model:
    """Loads a SavedModel from wherever it is; raises InputError or OSError."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model; `dvc repro` makes one")
    network = NetworkInfo.read(folder / saved_model.METADATA)
    return saved_model.load_classifier(folder), network


def prepare(file: Path, network: NetworkInfo, invert: str) -> tuple[np.ndarray, bool]:
    """Reads a picture of any size and format as an image for the network.

    If the model was trained on drawings, the picture is fitted into the frame as they
    were, unless it already has their size. `invert` swaps light and dark: "yes", "no",
    or "auto", if the border is light that was dark in training, or vice versa.

    Returns:
      `[H, W, C]` uint8, and whether it was inverted.

    Raises:
      InputError: If the file cannot be read, or nothing is drawn on it.
    """
    *size, channels = network.image_shape
    image = read_image(file, channels)
    is_inverted = invert == "yes"
    if invert == "auto" and network.border:
        own = float(np.median(border(np.atleast_3d(image))))
        low, high, own = (v > MID_GRAY for v in (*network.border, own))
        is_inverted = low == high != own
    image = ImageOps.invert(image) if is_inverted else image
    if network.drawing_side and image.size != (size[1], size[0]):
        image = fit_drawing(image, size, network.drawing_side)
        if image is None:
            raise InputError(f"{str(file)!r}: nothing is drawn on it")
    return np.atleast_3d(resize_image(image, size)), is_inverted


def fit_drawing(image: Image.Image, size: Sequence[int], side: int):
    """Fits a gray drawing into a frame `[height, width]` as MNIST's digits were.

    The strokes are scaled to fit into a square of `side` pixels, then centered by mass.
    Contrast is stretched. Returns an `Image`, or None if there are no strokes.

    References:
      LeCun et al., 1998: Gradient-based learning applied to document recognition.
    """
    background = np.median(border(np.atleast_3d(image)))
    ink = np.abs(np.asarray(image, np.float32) - background)
    ink[ink < max(MIN_CONTRAST, MIN_INK * ink.max())] = 0
    strokes = Image.fromarray(ink.astype(np.uint8))
    if not (bounds := strokes.getbbox()):
        return None
    left, top, right, bottom = bounds
    length = max(right - left, bottom - top)
    left, top = (left + right - length) // 2, (top + bottom - length) // 2
    # Outside of the picture, the crop is black: no ink.
    square = strokes.crop((left, top, left + length, top + length))
    square = np.asarray(resize_image(square, [side, side]))
    shift = np.round(np.divide(size, 2) - center_of_mass(square)).astype(int)
    top, left = np.clip(shift, 0, np.subtract(size, side))
    frame = np.zeros(size, np.uint8)
    frame[top : top + side, left : left + side] = square * (255 / square.max())
    return Image.fromarray(frame if background < MID_GRAY else 255 - frame)


def classify(model: Model, images: np.ndarray, top: int) -> list[dict[str, float]]:
    """Returns the `top` classes of `[N, H, W, C]` uint8 images, with probabilities."""
    signature, network = model
    _, probabilities = saved_model.predict(signature, images)
    best = np.argsort(-probabilities, stable=True)[:, :top]
    return [
        {network.class_names[n]: round(float(row[n]), DECIMALS) for n in indices}
        for row, indices in zip(probabilities, best, strict=True)
    ]


def predict_files(model: Model, options: Namespace) -> None:
    """Prints answers about files, and image files in folders and below, sorted.

    A file that cannot be used is a line on stderr, and then the exit code is 1. The
    options are those of `core-mlp predict`.
    """
    if options.top < 1:
        raise InputError(f"--top {options.top}: expected 1 or more")
    if (show := options.show) and (show.suffix != ".png" or not show.parent.is_dir()):
        raise InputError(f"--show {show}: expected a .png file in an existing folder")
    known = Image.registered_extensions()  # This also fills Image.OPEN.
    readable = {ending for ending, name in known.items() if name in Image.OPEN}
    files, rows, images = [], [], []
    for path in options.paths:
        below = sorted(f for f in path.rglob("*") if f.suffix.lower() in readable)
        files += [file for file in below if file.is_file()] or [path]
    for file in files:
        try:
            image, is_inverted = prepare(file, model[1], options.invert)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            continue
        images.append(image)
        rows.append({"file": str(file), "inverted": is_inverted})
    if not rows:
        sys.exit(1)
    answers = classify(model, np.stack(images), options.top)
    for row, answer in zip(rows, answers, strict=True):
        for rank, (name, probability) in enumerate(answer.items(), start=1):
            row |= {f"class_{rank}": name, f"probability_{rank}": probability}
    match options.format:
        case "json":
            print(json.dumps(rows, indent=2))
        case "csv":
            print(pd.DataFrame(rows).to_csv(index=False), end="")
        case "table":
            print(pd.DataFrame(rows).to_string(index=False))
    if show:
        from core_mlp.evaluation import plots  # Takes a second to import.

        seen = np.stack(images[:MAX_SHOWN])
        titles = [
            f"{Path(row['file']).name[-20:]}\n{row['class_1']} "
            f"{row['probability_1']:.4f}" + ", inverted" * row["inverted"]
            for row in rows[:MAX_SHOWN]
        ]
        plots.draw_examples(show, seen, titles, "What the network saw")
        print(f"Wrote {show}", file=sys.stderr)
    sys.exit(len(rows) < len(files))
