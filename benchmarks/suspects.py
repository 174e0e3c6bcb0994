"""Swaps labels in a folder of pictures, and tells how many `core-mlp suspects` finds.

    PYTHONPATH=src python benchmarks/suspects.py swap PICTURES NAME
    core-mlp suspects --jobs 2
    PYTHONPATH=src python benchmarks/suspects.py score NAME RESULT.csv

PICTURES has a folder of pictures per class. The first command copies 500 of each class
into data/source/NAME/train and 10 into data/source/NAME/test, and moves 2 % of the
former into another class. Which ones is in NAME.swapped. Set dataset: NAME and
validation_size: 500 in params.yaml. The last command prints the precision and the
recall, and adds the suspects to RESULT.csv.
"""

import csv
import random
import shutil
import sys
from pathlib import Path

from core_mlp.results.suspects import Suspect

NUM_TRAIN, NUM_TEST = 500, 10  # Pictures of a class.
SHARE = 0.02
NUM_FIRST = 50
NUM_KEPT = 200  # Suspects in RESULT.csv.
COLUMNS = ("dataset", "rank", "is_swapped", *Suspect._fields)


def swap(pictures: Path, name: str) -> None:
    """Makes the dataset, and notes the pictures that got another label."""
    draw = random.Random(0)
    folder = Path("data/source", name)
    classes = sorted(path.name for path in pictures.iterdir())
    for label in classes:
        files = sorted((pictures / label).iterdir())
        chosen = draw.sample(files, NUM_TRAIN + NUM_TEST)
        for split, part in (
            ("train", chosen[:NUM_TRAIN]),
            ("test", chosen[NUM_TRAIN:]),
        ):
            (folder / split / label).mkdir(parents=True)
            for file in part:
                # Named after the class, so that moved files do not meet.
                shutil.copy(file, folder / split / label / f"{label}_{file.name}")
    files = sorted(folder.glob("train/*/*"))
    swapped = []
    for file in draw.sample(files, round(SHARE * len(files))):
        label = draw.choice([other for other in classes if other != file.parent.name])
        moved = file.rename(folder / "train" / label / file.name)
        swapped.append(str(moved.relative_to(folder)))
    Path(f"{name}.swapped").write_text("\n".join(sorted(swapped)) + "\n")


def score(name: str, result: Path) -> None:
    """Compares suspects.csv with what was swapped."""
    swapped = set(Path(f"{name}.swapped").read_text().split())
    with open("suspects.csv", encoding="utf-8", newline="") as file:
        suspects = [Suspect(**row) for row in csv.DictReader(file)]
    is_swapped = [suspect.file in swapped for suspect in suspects]
    print(f"{len(suspects)} suspects, {len(swapped)} labels swapped")
    for number in (NUM_FIRST, len(swapped), len(suspects)):
        found = sum(is_swapped[:number])
        print(
            f"first {number}: precision {found / number:.2f}, "
            f"recall {found / len(swapped):.2f}"
        )
    rows = [
        (name, rank, int(flag), *suspect)
        for rank, (flag, suspect) in enumerate(
            zip(is_swapped, suspects, strict=True), start=1
        )
    ]
    missed = swapped - {suspect.file for suspect in suspects}
    kept = [row for row in rows if row[1] <= NUM_KEPT or row[2]]
    kept += [(name, "", 1, file, "", "", "", "") for file in sorted(missed)]
    with result.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not file.tell():
            writer.writerow(COLUMNS)
        writer.writerows(kept)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "swap":
        swap(Path(arguments[0]), arguments[1])
    else:
        score(arguments[0], Path(arguments[1]))
