"""Classifies pictures: prepares image files as in training, and prints the answers."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from PIL import ImageOps

from core_mlp.pipeline.errors import InputError, first_line
from core_mlp.pipeline.files import DECIMALS
from core_mlp.pipeline.metadata import NetworkInfo
from core_mlp.pipeline.text import visible
from core_mlp.serving import answers, litert
from core_mlp.serving.drawings import MID_GRAY, border_brightness, fit_drawing
from core_mlp.sources.image_files import (
    FORMAT_NAMES,
    is_image_file,
    read_image,
    resize_image,
)

MAX_SHOWN = 100
# Whether to swap light and dark; auto: if the border is unlike that of the training
# images.
Invert = Literal["auto", "yes", "no"]
Format = Literal["table", "json", "csv"]


class Model(NamedTuple):
    """An exported model.

    Attributes:
      classify: Answers to images.
      network: The metadata that was exported with it.
    """

    classify: answers.Classify
    network: NetworkInfo


class Prepared(NamedTuple):
    """A picture as the network sees it.

    Attributes:
      image: `[H, W, C]` uint8.
      is_inverted: Whether light and dark were swapped.
    """

    image: np.ndarray
    is_inverted: bool


def load_model(folder: Path) -> Model:
    """Loads a LiteRT model or a SavedModel, without TensorFlow if it can.

    Raises:
      InputError: If there is no such model, or it cannot be loaded.
      OSError: If its metadata cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such model; `dvc repro` makes one")
    if (folder / litert.MODEL).exists():
        network = NetworkInfo.read(folder / litert.METADATA)
        return Model(litert.load_classifier(folder), network)
    # Imported here because TensorFlow takes seconds.
    from core_mlp.serving import saved_model

    network = NetworkInfo.read(folder / saved_model.METADATA)
    return Model(saved_model.load_classifier(folder), network)


def prepare(file: Path, network: NetworkInfo, invert: Invert = "auto") -> Prepared:
    """Reads a picture of any size and format as an image for the network.

    If the model was trained on drawings, the picture is fitted into the frame as they
    were, unless it already has their size.

    Raises:
      InputError: If the file cannot be read, or nothing is drawn on it.
    """
    height, width, channels = network.image_shape
    image = read_image(file, channels)
    is_inverted = invert == "yes"
    if invert == "auto" and network.border:
        is_inverted = is_unlike(network.border, border_brightness(image))
    if is_inverted:
        image = ImageOps.invert(image)
    if network.drawing_side and image.size != (width, height):
        image = fit_drawing(image, [height, width], network.drawing_side)
        if image is None:
            raise InputError(f"{str(file)!r}: nothing is drawn on it")
    pixels = np.atleast_3d(resize_image(image, [height, width]))
    return Prepared(pixels, is_inverted)


def is_unlike(trained: tuple[float, float], own: float) -> bool:
    """Tells whether a border is light and those of training are dark, or vice versa.

    >>> is_unlike((0, 10), 250), is_unlike((0, 10), 20), is_unlike((0, 200), 250)
    (True, False, False)

    Args:
      trained: Lowest and highest brightness, 0 to 255, of most training images'
        borders.
      own: Brightness of the picture's border.
    """
    low, high = trained
    if own > MID_GRAY:
        return high <= MID_GRAY
    return low > MID_GRAY


def classify(model: Model, images: np.ndarray, *, top: int) -> list[dict[str, float]]:
    """Returns the `top` classes of `[N, H, W, C]` uint8 images, with probabilities."""
    _, probabilities = answers.predict(model.classify, images)
    best = np.argsort(-probabilities, stable=True)[:, :top]
    names = model.network.class_names
    return [
        {names[index]: round(float(row[index]), DECIMALS) for index in indices}
        for row, indices in zip(probabilities, best, strict=True)
    ]


def find_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """Finds the image files in a folder and below, except hidden ones.

    Returns:
      The files, sorted, and a line about each file and folder that cannot be read, or
      about the folder if it has no image files.
    """
    files, problems = [], []

    def note(error: OSError) -> None:
        problems.append(f"{str(error.filename)!r}: {error.strerror}")

    for root, folders, names in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name.startswith("."):
                continue
            path = Path(root, name)
            try:
                # Opening a pipe would wait for somebody to write into it.
                if os.path.isfile(path) and is_image_file(path):
                    files.append(path)
            except OSError as error:
                note(error)
    if not files and not problems:
        problems.append(
            f"{str(folder)!r}: no pictures ({FORMAT_NAMES}) in this folder or below"
        )
    return sorted(files), problems


def predict_files(
    model: Model,
    paths: Sequence[Path],
    *,
    top: int = 3,
    output_format: Format = "table",
    invert: Invert = "auto",
    show: Path | None = None,
) -> bool:
    """Classifies files, and the image files in folders and below; prints the answers.

    A file that cannot be used is reported on stderr; the others are classified.

    Args:
      model: The model that answers.
      paths: Files and folders.
      top: How many classes to give for a picture.
      output_format: How to print the answers.
      invert: Whether to swap light and dark.
      show: PNG file to draw what the network saw; None to draw nothing.

    Returns:
      Whether all files could be used.

    Raises:
      InputError: If `top` or `show` cannot be used.
    """
    if top < 1:
        raise InputError(f"--top {top}: expected 1 or more")
    if show and (show.suffix != ".png" or not show.parent.is_dir()):
        raise InputError(f"--show {show}: expected a .png file in an existing folder")
    files, problems = [], []
    for path in paths:
        if os.path.isdir(path):
            found, problems_below = find_pictures(path)
            files += found
            problems += problems_below
        else:
            files.append(path)
    rows, images = [], []
    for file in files:
        try:
            prepared = prepare(file, model.network, invert)
        except InputError as error:
            problems.append(str(error))
        # Whatever error one picture causes, the others are classified.
        except Exception as error:
            problems.append(f"{str(file)!r}: {first_line(error)}")
        else:
            images.append(prepared.image)
            rows.append({"file": visible(str(file)), "inverted": prepared.is_inverted})
    for problem in problems:
        print(visible(f"error: {problem}"), file=sys.stderr)
    if not rows:
        return False
    found = classify(model, np.stack(images), top=top)
    for row, answer in zip(rows, found, strict=True):
        for rank, (name, probability) in enumerate(answer.items(), start=1):
            row[f"class_{rank}"] = visible(name)
            row[f"probability_{rank}"] = probability
    print_rows(rows, output_format)
    if show:
        draw_inputs(show, np.stack(images[:MAX_SHOWN]), rows[:MAX_SHOWN])
        print(visible(f"Wrote {show}"), file=sys.stderr)
    return not problems


def print_rows(rows: list[dict[str, Any]], output_format: Format) -> None:
    """Prints answers as a table, as JSON or as CSV."""
    match output_format:
        case "json":
            print(json.dumps(rows, indent=2))
        case "csv":
            text = pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
            print(text, end="")
        case "table":
            print(pd.DataFrame(rows).to_string(index=False))


def draw_inputs(path: Path, images: np.ndarray, rows: list[dict[str, Any]]) -> None:
    """Draws what the network saw, `[N, H, W, C]` uint8, each with its answer."""
    from core_mlp.evaluation import plots  # Takes a second to import.

    titles = []
    for row in rows:
        title = f"{Path(row['file']).name[-20:]}\n"
        title += f"{row['class_1']} {row['probability_1']:.4f}"
        if row["inverted"]:
            title += ", inverted"
        titles.append(title)
    plots.draw_examples(path, images, titles, "What the network saw")
