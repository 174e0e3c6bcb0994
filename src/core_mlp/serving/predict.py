"""Answers about pictures: prepares image files as in training and classifies them."""

import json
import os
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
from core_mlp.pipeline.stage import InputError, first_line
from core_mlp.pipeline.text import visible
from core_mlp.serving import saved_model
from core_mlp.sources.image_files import (
    FORMAT_NAMES,
    border,
    is_image_file,
    read_image,
    resize_image,
)

MAX_SHOWN = 100
MID_GRAY = 127.5
MIN_CONTRAST, MIN_INK = 16, 0.25  # Fainter strokes are paper: gray levels, fraction.
MAX_STROKES = 9_000  # Pixels, of the square around the strokes that is scaled at once.
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
    background = float(np.median(border(np.atleast_3d(image))))
    ink = np.abs(np.asarray(image, np.float32) - background)
    ink[ink < max(MIN_CONTRAST, MIN_INK * ink.max())] = 0
    strokes = Image.fromarray(ink.astype(np.uint8))
    if not (bounds := strokes.getbbox()):
        return None
    strokes = strokes.crop(bounds)
    if (length := max(strokes.size)) > MAX_STROKES:
        scale = MAX_STROKES / length
        smaller = [max(1, round(pixels * scale)) for pixels in strokes.size]
        strokes = strokes.resize(smaller, Image.Resampling.BILINEAR)
    width, height = strokes.size
    length = max(width, height)
    left, top = (width - length) // 2, (height - length) // 2
    # Outside of the strokes, the crop is black: no ink.
    strokes = strokes.crop((left, top, left + length, top + length))
    square = np.asarray(resize_image(strokes, [side, side]))
    if not square.any():  # The strokes are so thin that they were rounded to nothing.
        exact = strokes.convert("F")
        square = np.asarray(exact.resize([side, side], Image.Resampling.BILINEAR))
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


def find_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """Finds the image files in a folder and below, without hidden ones.

    Returns:
      The files, sorted, and a line about each file and folder that cannot be read, or
      about the folder if it has no image files.
    """
    files, problems = [], []

    def note(error: OSError) -> None:
        problems.append(f"{str(error.filename)!r}: {error.strerror}")

    for root, folders, names in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(root, name) for name in names if not name.startswith(".")):
            try:
                # Whoever opens a pipe waits for what is written into it.
                if os.path.isfile(path) and is_image_file(path):
                    files.append(path)
            except OSError as error:
                note(error)
    if not files and not problems:
        problems.append(
            f"{str(folder)!r}: no pictures ({FORMAT_NAMES}) in this folder or below"
        )
    return sorted(files), problems


def predict_files(model: Model, options: Namespace) -> None:
    """Prints answers about files, and image files in folders and below, sorted.

    A file that cannot be used is a line on stderr, and then the exit code is 1. The
    options are those of `core-mlp predict`.
    """
    if options.top < 1:
        raise InputError(f"--top {options.top}: expected 1 or more")
    if (show := options.show) and (show.suffix != ".png" or not show.parent.is_dir()):
        raise InputError(f"--show {show}: expected a .png file in an existing folder")
    files, problems = [], []
    for path in options.paths:
        if os.path.isdir(path):
            found, problems_below = find_pictures(path)
            files += found
            problems += problems_below
        else:
            files.append(path)
    rows, images = [], []
    for file in files:
        try:
            image, is_inverted = prepare(file, model[1], options.invert)
        except InputError as error:
            problems.append(str(error))
        # Whatever a picture causes, the others are answered.
        except Exception as error:
            problems.append(f"{str(file)!r}: {first_line(error)}")
        else:
            images.append(image)
            rows.append({"file": visible(str(file)), "inverted": is_inverted})
    for problem in problems:
        print(visible(f"error: {problem}"), file=sys.stderr)
    if not rows:
        sys.exit(1)
    answers = classify(model, np.stack(images), options.top)
    for row, answer in zip(rows, answers, strict=True):
        for rank, (name, probability) in enumerate(answer.items(), start=1):
            row[f"class_{rank}"] = visible(name)
            row[f"probability_{rank}"] = probability
    match options.format:
        case "json":
            print(json.dumps(rows, indent=2))
        case "csv":
            text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
            print(text, end="")
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
        print(visible(f"Wrote {show}"), file=sys.stderr)
    sys.exit(1 if problems else 0)
