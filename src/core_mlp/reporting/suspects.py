"""Lists labels that are probably wrong, as suspects.csv and as suspects.html."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import quote

import numpy as np
from PIL import Image

from core_mlp.pipeline.environment import SOURCE
from core_mlp.pipeline.files import write_csv, write_text
from core_mlp.pipeline.text import visible
from core_mlp.reporting.document import picture, render, to_html
from core_mlp.results.suspects import MAX_SHOWN, HeldOut, Suspect

CSV = Path("suspects.csv")
HTML = Path("suspects.html")
MAX_SIDE = 128  # Pixels of a picture on the page; larger ones are scaled down.


class Suspects(NamedTuple):
    """The labels that are contradicted with confidence.

    Attributes:
      dataset: What they are labels of.
      num_folds: How many models there were.
      num_labels: How many labels there are in all.
      num_predicted: How many of them the models gave themselves.
      rows: The suspects, the most suspicious one first.
      images: `[H, W, C]` uint8, the images of the first MAX_SHOWN of them.
    """

    dataset: str
    num_folds: int
    num_labels: int
    num_predicted: int
    rows: list[Suspect]
    images: list[np.ndarray]

    @classmethod
    def of(cls, dataset: str, folds: Sequence[HeldOut], found: np.ndarray) -> Self:
        """Describes suspects.

        Args:
          dataset: What they are labels of.
          folds: What a model says about each fold.
          found: `[S]` integers, the most suspicious one first: indices into all images,
            one fold after the other.
        """
        places = [(fold, index) for fold in folds for index in range(len(fold.labels))]
        suspects = [places[index] for index in found]
        return cls(
            dataset=dataset,
            num_folds=len(folds),
            num_labels=len(places),
            num_predicted=sum(int(np.sum(~fold.is_contradicted)) for fold in folds),
            rows=[describe(fold, index) for fold, index in suspects],
            images=[fold.image_of(index) for fold, index in suspects[:MAX_SHOWN]],
        )


def describe(fold: HeldOut, index: int) -> Suspect:
    """Returns what is said about one image of a fold."""
    probabilities = fold.probabilities[index]
    label, predicted = fold.labels[index], probabilities.argmax()
    return Suspect(
        file=visible(str(fold.names[index])),
        label=visible(str(fold.class_names[label])),
        predicted=visible(str(fold.class_names[predicted])),
        confidence=probabilities[predicted],
        label_confidence=probabilities[label],
    )


def write_suspects(suspects: Suspects) -> None:
    """Writes the CSV and the page, and prints how many suspects there are."""
    write_csv(CSV, suspects.rows, Suspect)
    shown = [
        (suspect, link(suspects.dataset, suspect.file), thumbnail(image))
        for suspect, image in zip(suspects.rows, suspects.images, strict=False)
    ]
    title = f"Suspicious labels of {suspects.dataset}"
    page = render("suspects.html", title=title, suspects=suspects, shown=shown)
    write_text(HTML, to_html(title, page))
    share = 100 * suspects.num_predicted / suspects.num_labels
    print(
        f"{len(suspects.rows):,} of {suspects.num_labels:,} labels are contradicted "
        f"with confidence; models that had not seen them predicted {share:.2f} % of all"
    )
    print(f"Wrote {CSV} and {HTML}: look at each; nothing was changed")


def link(dataset: str, file: str) -> str:
    """Returns the URL of a picture in data/source, from the page; "" without a file."""
    path = SOURCE / dataset / file
    return quote(path.as_posix()) if path.is_file() else ""


def thumbnail(image: np.ndarray) -> str:
    """Returns an image, `[H, W, C]` uint8, as a part of a page."""
    small = Image.fromarray(image.squeeze(axis=2) if image.shape[2] == 1 else image)
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    file = io.BytesIO()
    small.save(file, format="png")
    return picture(file.getvalue())
