"""Image folders: `NAME/CLASS/*`, or `NAME/train/CLASS/*` and `NAME/test/CLASS/*`."""

import math
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from core_mlp.pipeline.files import sha256
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.pipeline.params import PATH as PARAMS
from core_mlp.pipeline.stage import InputError, exit_with_parent
from core_mlp.sources.arrays import Batches, describe_split
from core_mlp.sources.image_files import read_image, resize_image

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".gif"}
NUM_PROCESSES = os.cpu_count() or 1
# Of one task of a process: large enough to hide its cost, small enough for memory.
BATCH_FILES = 256
BATCH_BYTES = 4 * 2**20
MAX_SHOWN = 20

# Paths by class by split.
Images = dict[str, dict[str, list[str]]]
# Digest of the content, label and path.
File = tuple[str, int, str]


def find_images(folder: Path) -> Images:
    """Finds the image files of each class of each split.

    Hidden files and folders are skipped. What else is in the folder of a class is
    skipped with a message.

    Returns:
      Paths by class by split (train, and test if there is one); empty if there are no
      images in folders of classes.

    Raises:
      InputError: If there is another folder beside train and test.
    """
    if not folder.is_dir():
        return {}
    splits = {"train": folder}
    names = set(_subfolders(folder))
    if names & {"train", "test"} and (
        names <= {"train", "test"} or _subfolders(folder / "train")
    ):
        splits = {split: folder / split for split in ("train", "test")}
        if others := sorted(names - splits.keys()):
            raise InputError(
                f"{folder / others[0]}: expected train and test only; validation "
                "images are held out from train"
            )
    found, skipped = {}, []
    for split, split_folder in splits.items():
        classes = {}
        for name in _subfolders(split_folder):
            for entry in os.scandir(split_folder / name):
                extension = os.path.splitext(entry.name)[1].lower()
                if extension in EXTENSIONS and entry.name[0] != "." and entry.is_file():
                    classes.setdefault(name, []).append(entry.path)
                elif entry.name[0] != ".":
                    skipped.append(entry.path)
        if classes:
            found[split] = classes
    if found and skipped:
        print(f"Skipping what is not an image: {_shorten(sorted(skipped))}")
    return found


def read_splits(
    images: Images, name: str, image_size: Sequence[int] | None, channels: int | None
) -> Iterator[tuple[str, SplitInfo, Batches]]:
    """Reads image files in parallel, ordered by the SHA-256 of their content.

    This order depends on neither names nor the file system, and files that are added or
    removed do not reorder the others.

    Args:
      images: From `find_images`.
      name: Name of the dataset.
      image_size: Height and width to resize to; None if all images have the same.
      channels: 1 for gray, 3 for RGB; None if all images have the same.

    Yields:
      Each split with its metadata and batches, `[B, H, W, C]` uint8 and `[B]` int64.

    Raises:
      InputError: If sizes or channels differ, test has a class that train lacks, or,
        after the last split, if files cannot be read; the first of them are printed.
    """
    class_names = sorted(images.get("train", {}))
    if unknown := sorted(images.get("test", {}).keys() - class_names):
        raise InputError(f"dataset = {name}: train has no images of class {unknown[0]}")
    read = partial(_read_pixels, image_size=image_size, channels=channels)
    problems, copies, seen = [], [], {}
    example = None
    with ProcessPoolExecutor(
        NUM_PROCESSES, initializer=_start_worker, initargs=[os.getpid()]
    ) as pool:
        for split, classes in images.items():
            files = _sort_files(pool, split, [classes.get(c, []) for c in class_names])
            for digest, _, path in files:
                if (first := seen.setdefault(digest, path)) != path:
                    copies += [first, path]
            example = example or _read_first(read, files)
            info = describe_split(
                dataset=name,
                version="folder",
                image_shape=example[1] if example else (1, 1, 1),
                class_names=class_names,
                num_examples=len(files),
            )
            decode = partial(_decode, read=read, example=example)
            size = BATCH_BYTES // math.prod(info.image_shape)
            tasks = _map(pool, decode, files, max(1, min(size, BATCH_FILES)))
            yield split, info, _collect(tasks, problems)
    if copies:
        print(f"warning: files with the same content: {_shorten(copies)}")
    if problems:
        print(*problems[:MAX_SHOWN], sep="\n")
        raise InputError(
            f"dataset = {name}: {len(problems):,} of its files cannot be read; see the "
            "lines above"
        )


def _sort_files(
    pool: ProcessPoolExecutor, split: str, paths_by_label: list[list[str]]
) -> list[File]:
    """Returns digest, label and path of each file, in this order."""
    paths = [(p, label) for label, paths in enumerate(paths_by_label) for p in paths]
    files = []
    with tqdm(total=len(paths), desc=f"hash {split}", unit="file", disable=None) as bar:
        for hashed in _map(pool, _hash, paths, BATCH_FILES):
            files += hashed
            bar.update(len(hashed))
    return sorted(files)


def _read_first(read: Callable, files: list[File]) -> tuple[str, tuple] | None:
    """Returns path and shape of the first file that can be read, if there is one."""
    for _, _, path in files:
        with suppress(InputError):
            return path, read(path).shape
    return None


def _collect(tasks: Iterator, problems: list[str]) -> Batches:
    for pixels, labels, new_problems in tasks:
        problems += new_problems
        yield pixels, labels


def _map(
    pool: ProcessPoolExecutor, function: Callable, items: list, batch_size: int
) -> Iterator:
    """Maps batches in other processes, in order, not many more than are consumed."""
    pending = deque()
    for start in range(0, len(items), batch_size):
        pending.append(pool.submit(function, items[start : start + batch_size]))
        if len(pending) > 2 * NUM_PROCESSES:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _start_worker(parent: int) -> None:
    """Leaves Ctrl-C to the parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, args=[parent], daemon=True).start()


def _hash(paths: list[tuple[str, int]]) -> list[File]:
    return [(sha256(Path(path)), label, path) for path, label in paths]


def _decode(
    files: list[File], read: Callable, example: tuple[str, tuple] | None
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Returns images (black where a file cannot be read), labels and problems."""
    first, shape = example or ("", (1, 1, 1))
    images, problems = np.zeros([len(files), *shape], np.uint8), []
    for image, (_, _, path) in zip(images, files, strict=True):
        try:
            pixels = read(path)
        except InputError as error:
            problems.append(str(error))
            continue
        if pixels.shape != shape:
            key = "channels" if pixels.shape[:2] == shape[:2] else "image_size"
            choice = (
                "1 or 3" if key == "channels" else f"{list(shape[:2])}, for example"
            )
            raise InputError(
                f"{PARAMS}: {key} = null: {first!r} has the shape {list(shape)}, but "
                f"{path!r} has {list(pixels.shape)}; set {key} to {choice}"
            )
        image[:] = pixels
    return images, np.array([label for _, label, _ in files]), problems


def _read_pixels(
    path: str, image_size: Sequence[int] | None, channels: int | None
) -> np.ndarray:
    """Returns an image file as `[H, W, C]` uint8."""
    image = read_image(Path(path), channels)
    return np.atleast_3d(resize_image(image, image_size) if image_size else image)


def _subfolders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder that are not hidden."""
    entries = os.scandir(folder) if folder.is_dir() else []
    return [e.name for e in entries if e.is_dir() and e.name[0] != "."]


def _shorten(items: list[str]) -> str:
    shown = ", ".join(map(repr, items[:3]))
    return shown if len(items) <= 3 else f"{shown} and {len(items) - 3:,} more"
