"""Image folders: `NAME/CLASS/*`, or `NAME/train/CLASS/*` and `NAME/test/CLASS/*`."""

import math
import os
import signal
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from core_mlp.data.arrays import Split, describe_split
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import sha256
from core_mlp.pipeline.params import PARAMS_FILE
from core_mlp.pipeline.stage import exit_with_parent
from core_mlp.pipeline.text import first_names, visible
from core_mlp.sources.image_files import (
    FORMAT_NAMES,
    is_image_file,
    read_image,
    resize_image,
)
from core_mlp.sources.listing import Listing

# Names, in any case, that the folder of a split may have.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
# Size of a task: large enough to hide the cost of passing it on, small enough to keep
# all processes busy to the end.
TASK_FILES = 64
TASK_BYTES = 2**20
MAX_PROBLEMS = 20

# Paths of images, by split and then by class.
Images = dict[str, dict[str, list[str]]]
# Paths by folder; the dataset's own folder is "".
FilesByFolder = dict[str, list[str]]


def find_images(listing: Listing) -> Images:
    """Finds the image files of a dataset.

    Class names are in Unicode's normal form C, so that `café` is one class however a
    file system spells it.

    Returns:
      Paths by split and class; empty if no folder in the dataset's folder contains
      images.

    Raises:
      InputError: If an image would be left out because of where it is, or a class has
        files, but no images. Other files are only named in a warning.
    """
    for path in listing.ignored:
        if is_image_file(listing.root / path):
            listing.refuse_ignored(path)
    images: FilesByFolder = {}
    others: FilesByFolder = {}
    root = str(listing.root)
    for path in listing.files:
        # Not by pathlib, which takes longer than all the rest of this function.
        found = images if is_image_file(f"{root}/{path}") else others
        found.setdefault(os.path.dirname(path), []).append(path)
    if not images.keys() - {""}:
        return {}
    splits = {
        split: _find_classes(listing, folder, images, others)
        for split, folder in _find_splits(listing, images).items()
    }
    _warn_of_others(listing, others)
    return splits


def _find_splits(listing: Listing, images: FilesByFolder) -> dict[str, str]:
    """Returns the folder of each split: "" if the classes are not divided."""
    root = listing.root
    tops = sorted({folder.split("/")[0] for folder in images if folder})
    kinds = {top: SPLIT_NAMES.get(top.casefold()) for top in tops}
    divided = {
        top
        for top in tops
        if kinds[top] and any(f.startswith(f"{top}/") for f in images)
    }
    if not divided and not all(kinds.values()):
        return {"train": ""}  # Classes may be called train or test.
    for top in tops:
        if kinds[top] == "validation":
            raise InputError(
                f"{root / top}: validation images are held out of train (see "
                f"validation_size): move these into the class folders of train"
            )
        if kinds[top] and images.get(top):
            _refuse_place(
                listing, images[top][0], f"a folder per class in {root / top}"
            )
    if undivided := [top for top in tops if not kinds[top]]:
        raise InputError(
            f"{root}: {first_names(undivided)} beside {first_names(sorted(divided))}: "
            "move each class into train or test, or remove the folder"
        )
    if images.get(""):
        _refuse_place(listing, images[""][0], f"images in {root}/train/CLASS only")
    splits = {}
    for top in tops:
        if (split := kinds[top]) in splits:
            raise InputError(
                f"{root}: both {splits[split]} and {top}: keep one of them"
            )
        splits[split] = top
    if "train" not in splits:
        raise InputError(
            f"{root}: {first_names(tops)}, but no folder train with images"
        )
    return {split: splits[split] for split in ("train", "test") if split in splits}


def _find_classes(
    listing: Listing, base: str, images: FilesByFolder, others: FilesByFolder
) -> dict[str, list[str]]:
    """Returns the paths of the images in each class folder of a split's folder."""
    where = listing.root / base
    if images.get(base):
        _refuse_place(listing, images[base][0], f"a folder per class in {where}")
    others_by_class = _group_by_class(base, others)
    classes: dict[str, list[str]] = {}
    empty = []
    for folder, paths in _group_by_class(base, images).items():
        for path in paths:
            if os.path.dirname(path) != folder:
                expected = f"the images of a class directly in {listing.root / folder}"
                _refuse_place(listing, path, expected)
        name = unicodedata.normalize("NFC", os.path.basename(folder))
        full = [os.path.join(listing.root, path) for path in paths]
        classes.setdefault(name, []).extend(full)
    for folder in listing.folders:
        if os.path.dirname(folder) != base or folder in images:
            continue
        if found := others_by_class.get(folder):
            raise InputError(
                f"{listing.root / folder}: no images ({FORMAT_NAMES}) in this class, "
                f"but {len(found):,} other files, such as {found[0]!r}: convert them, "
                "or remove the folder"
            )
        empty.append(os.path.basename(folder))
    if empty:
        print(
            visible(f"warning: {where}: no files in {first_names(empty)}"), flush=True
        )
    return classes


def _group_by_class(base: str, files: FilesByFolder) -> FilesByFolder:
    """Returns the files below each class folder of a split's folder, at any depth."""
    groups: FilesByFolder = {}
    start = f"{base}/" if base else ""
    for folder, paths in files.items():
        if folder and folder.startswith(start):
            class_folder = start + folder[len(start) :].split("/")[0]
            groups.setdefault(class_folder, []).extend(paths)
    return groups


def _refuse_place(listing: Listing, path: str, expected: str) -> None:
    found = f"found the image {str(listing.root / path)!r}"
    raise InputError(f"{listing.root}: expected {expected}, {found}")


def _warn_of_others(listing: Listing, others: FilesByFolder) -> None:
    """Warns of the files that are not images, folder by folder."""
    if not others:
        return
    counts = [f"{len(others[f]):,} in {f or listing.root}" for f in sorted(others)]
    example = str(listing.root / others[min(others)][0])
    print(
        visible(
            f"warning: skipped files that are not {FORMAT_NAMES}: "
            f"{first_names(counts)}; such as {example!r}"
        ),
        flush=True,
    )


def read_splits(
    images: Images,
    root: Path,
    name: str,
    image_size: Sequence[int] | None,
    channels: int | None,
) -> Iterator[Split]:
    """Reads image files in parallel, ordered by the SHA-256 of their content.

    This order depends on neither names nor the file system, and files that are added or
    removed do not reorder the others.

    Args:
      images: From `find_images`.
      root: The dataset's folder.
      name: Name of the dataset.
      image_size: Height and width to resize to; None to keep the original.
      channels: 1 for gray, 3 for RGB; None to keep the original.

    Yields:
      Each split; its images are to be written before the next.

    Raises:
      InputError: If shapes differ, test has a class that train lacks, or, after the
        last split, if files cannot be read; the first of them are printed.
    """
    names = sorted(images.get("train", {}))
    if unknown := sorted(images.get("test", {}).keys() - names):
        raise InputError(f"dataset = {name}: train has no images of class {unknown[0]}")
    if len(names) < 2:
        found = ", ".join(names) or "none"
        message = f"expected a folder for each of two or more classes, found {found}"
        raise InputError(f"dataset = {name}: {message}")
    read = partial(_read, image_size=image_size, channels=channels)
    problems = []
    example = None
    pool = ProcessPoolExecutor(None, None, _start_worker, [os.getpid()])
    try:
        for split, classes in images.items():
            labels, paths = [], []
            for label, class_name in enumerate(names):
                class_paths = classes.get(class_name, [])
                labels += [label] * len(class_paths)
                paths += class_paths
            hashes = _map(pool, sha256, paths, chunksize=TASK_FILES)
            hashes = tqdm(hashes, "hash", len(paths), unit="file", disable=None)
            files = sorted(zip(hashes, labels, paths, strict=True))
            if not example:
                example = _find_example(read, files)
            info = describe_split(
                dataset=name,
                version="folder",
                image_shape=example[1],
                class_names=names,
                num_examples=len(files),
            )
            write_images = partial(
                _write_images,
                pool=pool,
                read=read,
                files=files,
                example=example,
                problems=problems,
            )
            yield Split(split, info, write_images, _paths_in(root, files))
    finally:
        pool.shutdown(cancel_futures=True)
    if problems:
        print(*problems[:MAX_PROBLEMS], sep="\n", flush=True)
        found = f"{len(problems):,} of its files cannot be read; see the lines above"
        raise InputError(f"dataset = {name}: {found}")


def _paths_in(root: Path, files: list[tuple[str, int, str]]) -> np.ndarray:
    """Returns the paths of files in a folder, `[N]` bytes, as the system has them."""
    start = f"{root}/"
    return np.array([os.fsencode(path.removeprefix(start)) for _, _, path in files])


def _find_example(
    read: Callable[[str], np.ndarray | str], files: list[tuple[str, int, str]]
) -> tuple[str, tuple[int, ...]]:
    """Returns path and shape of the first image that can be read."""
    for _, _, path in files:
        pixels = read(path)
        if not isinstance(pixels, str):
            return path, pixels.shape
    return "", (1, 1, 1)


def _write_images(
    path: Path,
    start: int,
    *,
    pool: ProcessPoolExecutor,
    read: Callable[[str], np.ndarray | str],
    files: list[tuple[str, int, str]],
    example: tuple[str, tuple[int, ...]],
    problems: list[str],
) -> Iterator[np.ndarray]:
    """Decodes files in other processes, which write the pixels into `path`.

    If a file cannot be read, the reason is added to `problems`, and a black image takes
    its place.
    """
    first, shape = example
    image_bytes = math.prod(shape)
    size = max(1, min(TASK_FILES, TASK_BYTES // image_bytes))
    tasks = [files[index : index + size] for index in range(0, len(files), size)]
    paths = [[file for _, _, file in task] for task in tasks]
    starts = [start + index * size * image_bytes for index in range(len(tasks))]
    write = partial(_write_task, output=path, shape=shape, read=read)
    for task, outcomes in zip(tasks, _map(pool, write, paths, starts), strict=True):
        for (_, _, file), outcome in zip(task, outcomes, strict=True):
            if isinstance(outcome, str):
                problems.append(outcome)
            elif outcome != shape:
                key = "channels" if outcome[:2] == shape[:2] else "image_size"
                raise InputError(
                    f"{PARAMS_FILE}: {key} = null: {first!r} has the shape "
                    f"{list(shape)}, {file!r} has {list(outcome)}: set {key}"
                )
        yield np.array([label for _, label, _ in task])


def _write_task(
    paths: list[str],
    start: int,
    *,
    output: Path,
    shape: tuple[int, ...],
    read: Callable[[str], np.ndarray | str],
) -> list[tuple[int, ...] | str]:
    """Decodes files and writes their pixels, one after another, from `start` on.

    Returns:
      The shape of each image, or the reason why it cannot be read.
    """
    outcomes = []
    with output.open("r+b") as file:
        file.seek(start)
        for path in paths:
            pixels = read(path)
            outcome = pixels if isinstance(pixels, str) else pixels.shape
            file.write(pixels if outcome == shape else bytes(math.prod(shape)))
            outcomes.append(outcome)
    return outcomes


def _read(
    path: str, image_size: Sequence[int] | None, channels: int | None
) -> np.ndarray | str:
    """Returns an image as `[H, W, C]` uint8, or the reason why it cannot be read."""
    try:
        image = read_image(path, channels)
        return np.atleast_3d(resize_image(image, image_size) if image_size else image)
    except InputError as error:
        return str(error)
    except MemoryError:
        return f"{path!r}: there is not enough memory to read it"


def _map(
    pool: ProcessPoolExecutor, function: Callable, *items: Sequence, chunksize: int = 1
) -> Iterator:
    """Yields a function's results for each item, computed in other processes."""
    try:
        yield from pool.map(function, *items, chunksize=chunksize)
    except BrokenProcessPool as error:
        raise InputError(
            "a process that reads images was killed, perhaps because the memory was "
            "full; nothing has been changed"
        ) from error


def _start_worker(parent: int) -> None:
    """Leaves Ctrl-C to the parent process, and ends when the parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, args=[parent], daemon=True).start()
