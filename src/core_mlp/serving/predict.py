"""Answers about pictures: prepares image files as in training and classifies them."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from core_mlp.data.images import border_brightness
from core_mlp.pipeline.files import DECIMALS
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.pipeline.stage import InputError
from core_mlp.serving import saved_model
from core_mlp.sources.image_files import border, read_image, resize_image

BATCH_SIZE = 1000
MAX_SHOWN = 100
MID_GRAY = 127.5
# Fainter strokes, as a fraction of the strongest, are paper and noise.
MIN_INK = 0.25
# Less contrast, in gray levels, is no drawing.
MIN_CONTRAST = 16


class Model(NamedTuple):
    """A loaded SavedModel and the metadata that was exported with it."""

    classify: Callable
    network: NetworkInfo


class Answer(NamedTuple):
    """Answer about one picture.

    Attributes:
      image: What the network saw, `[H, W, C]` uint8.
      is_inverted: Whether light and dark were swapped for it.
      classes: Names of the classes and their probabilities, the best first.
    """

    image: np.ndarray
    is_inverted: bool
    classes: dict[str, float]


def load_model(folder: Path) -> Model:
    """Loads a SavedModel from wherever it is; raises InputError or OSError."""
    network = NetworkInfo.read(folder / saved_model.METADATA)
    return Model(saved_model.load_classifier(folder), network)


def prepare(
    file: Path, network: NetworkInfo, invert: Literal["auto", "yes", "no"] = "auto"
) -> tuple[np.ndarray, bool]:
    """Reads a picture of any size and format as an image for the network.

    A picture of the network's own size is used as it is. Of others, drawings are fitted
    into the frame as those in the training images were, if they were drawings; the rest
    is resized as a whole.

    Args:
      file: The image file.
      network: From the SavedModel.
      invert: Whether to swap light and dark. `auto` does where the picture's border is
        light and nearly all training images have a dark one, or vice versa.

    Returns:
      `[H, W, C]` uint8, and whether it was inverted.

    Raises:
      InputError: If the file cannot be read, or there is nothing in it to fit.
    """
    *size, channels = network.image_shape
    image = read_image(file, channels)
    is_inverted = invert == "yes"
    if invert == "auto" and network.border_brightness:
        brightness = border_brightness(np.atleast_3d(image)[np.newaxis]).item()
        is_light, low, high = (
            value > MID_GRAY for value in (brightness, *network.border_brightness)
        )
        is_inverted = low == high != is_light
    if is_inverted:
        image = ImageOps.invert(image)
    if network.drawing_side and image.size != (size[1], size[0]):
        try:
            image = fit_drawing(image, size, network.drawing_side)
        except ValueError as error:
            raise InputError(f"{str(file)!r}: {error}") from error
    image = resize_image(image, size)
    return np.asarray(image).reshape(network.image_shape), is_inverted


def fit_drawing(image: Image.Image, size: Sequence[int], side: int) -> Image.Image:
    """Fits a drawing into a frame as MNIST's digits were.

    The strokes are scaled to fit into a square, with their aspect ratio, and shifted by
    whole pixels so that their center of mass is in the middle of the frame. Background
    and strongest stroke become black and white, whichever of them was lighter.

    Args:
      image: Gray, of any size; the median of its border is the background.
      size: Height and width of the frame.
      side: Side of the square.

    Raises:
      ValueError: If nothing is drawn.

    References:
      LeCun et al., 1998: Gradient-based learning applied to document recognition,
      section III.A.
    """
    background = np.median(border(np.atleast_3d(image)))
    ink = np.abs(np.asarray(image, np.float32) - background)
    if ink.max() < MIN_CONTRAST:
        raise ValueError("nothing is drawn on it")
    ink[ink < MIN_INK * ink.max()] = 0
    bounds = [(np.min(n), np.max(n) + 1) for n in np.nonzero(ink)]
    length = max(end - start for start, end in bounds)
    top, left = ((start + end - length) // 2 for start, end in bounds)
    # Outside of the picture is no ink.
    crop = Image.fromarray(ink.astype(np.uint8)).crop(
        (left, top, left + length, top + length)
    )
    square = np.asarray(resize_image(crop, [side, side]))
    # Not so far that strokes would leave the frame.
    top, left = (
        min(max(round(length / 2 - center), 0), length - side)
        for length, center in zip(size, ndimage.center_of_mass(square), strict=True)
    )
    frame = np.zeros(size, np.uint8)
    frame[top : top + side, left : left + side] = square * (255 / square.max())
    return Image.fromarray(frame if background < MID_GRAY else 255 - frame)


def classify(
    model: Model, prepared: Sequence[tuple[np.ndarray, bool]], top: int
) -> list[Answer]:
    """Classifies images from `prepare`; an answer has the `top` likeliest classes."""
    if not prepared:
        return []
    images = np.stack([image for image, _ in prepared])
    _, probabilities = saved_model.predict(model.classify, images)
    names = model.network.class_names
    best = np.argsort(-probabilities, stable=True)[:, :top]
    return [
        Answer(*pair, {names[n]: round(float(row[n]), DECIMALS) for n in indices})
        for pair, row, indices in zip(prepared, probabilities, best, strict=True)
    ]


def find_files(paths: Sequence[Path]) -> Iterator[Path]:
    """Yields files, and the image files in folders and below, sorted."""
    known = Image.registered_extensions()  # Before Image.OPEN: it loads the plugins.
    readable = {ending for ending, name in known.items() if name in Image.OPEN}
    for path in paths:
        if path.is_dir():
            files = sorted(f for f in path.rglob("*") if f.suffix.lower() in readable)
            yield from filter(Path.is_file, files)
        else:
            yield path


def predict_files(
    model: Model,
    paths: Sequence[Path],
    *,
    invert: Literal["auto", "yes", "no"] = "auto",
    top: int = 3,
    output_format: Literal["table", "json", "csv"] = "table",
    show: Path | None = None,
) -> None:
    """Prints answers about image files, and about those in folders.

    A file that cannot be used is one line on stderr; the others are answered. Then the
    exit code is 1.

    Args:
      model: From `load_model`.
      paths: Files and folders.
      invert: As in `prepare`.
      top: Number of classes per answer.
      output_format: How to print the answers.
      show: PNG to write: what the network saw, with its answers.

    Raises:
      InputError: If there are no image files in the folders.
    """
    files = list(dict.fromkeys(find_files(paths)))
    if not files:
        raise InputError(f"{', '.join(map(str, paths))}: no image files in it")
    answers = {}
    for start in range(0, len(files), BATCH_SIZE):
        prepared = {}
        for file in files[start : start + BATCH_SIZE]:
            try:
                prepared[file] = prepare(file, model.network, invert)
            except InputError as error:
                print(f"error: {error}", file=sys.stderr)
        batch = classify(model, list(prepared.values()), top)
        answers |= zip(prepared, batch, strict=True)
    print_answers(answers, output_format)
    if show and answers:
        draw(show, list(answers.values())[:MAX_SHOWN])
    if len(answers) < len(files):
        sys.exit(1)


def print_answers(answers: dict[Path, Answer], output_format: str) -> None:
    """Prints answers by file as a table, JSON or CSV."""
    rows = [(str(file), a.is_inverted, a.classes) for file, a in answers.items()]
    if output_format == "json":
        keys = ("file", "inverted", "classes")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2))
    elif output_format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        num_classes = max((len(classes) for *_, classes in rows), default=0)
        numbers = range(1, num_classes + 1)
        header = [f"{key}_{n}" for n in numbers for key in ("class", "probability")]
        writer.writerow(["file", "inverted", *header])
        writer.writerows([*row[:2], *chain(*row[2].items())] for row in rows)
    else:
        width = max((len(file) for file, *_ in rows), default=0)
        for file, is_inverted, classes in rows:
            texts = [f"{name} {value:.4f}" for name, value in classes.items()]
            note = ["(inverted)"] if is_inverted else []
            print("  ".join([file.ljust(width), *texts, *note]))


def draw(path: Path, answers: Sequence[Answer]) -> None:
    """Draws what the network saw, each image under its answers."""
    from core_mlp.evaluation import plots  # Takes a second to import.

    images = np.stack([answer.image for answer in answers])
    titles = [
        "\n".join(f"{name} {value:.4f}" for name, value in answer.classes.items())
        for answer in answers
    ]
    plots.draw_examples(path, images, titles, "What the network saw")
