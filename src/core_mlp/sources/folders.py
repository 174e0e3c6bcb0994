"""Image folders: `NAME/CLASS/*`, or `NAME/train/CLASS/*` and `NAME/test/CLASS/*`."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
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

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
# Of a task: large enough to hide the cost of passing it on, small enough for memory.
TASK_FILES = 64
TASK_BYTES = 2**20
WINDOW_TASKS = 256
MAX_PROBLEMS = 20

# Paths by class by split.
Images = dict[str, dict[str, list[str]]]


def find_images(folder: Path) -> Images:
    """Finds the image files, save hidden ones: paths by class by split."""
    splits, skipped, images = {"train": folder}, [], {}
    names = {entry.name for entry in _visible(folder) if entry.is_dir()}
    nested = any(entry.is_dir() for entry in _visible(folder / "train"))
    if nested or (names and names <= {"train", "test"}):
        splits = {split: folder / split for split in ("train", "test")}
        skipped = [e.path for e in _visible(folder) if e.name not in splits]
    for split, split_folder in splits.items():
        for entry in _visible(split_folder):
            files = {file.path: _is_image(file) for file in _visible(Path(entry.path))}
            if any(files.values()):
                classes = images.setdefault(split, {})
                classes[entry.name] = [path for path in files if files[path]]
                skipped += [path for path in files if not files[path]]
            else:
                skipped.append(entry.path)
    if images and skipped:
        problem = f"{len(skipped):,} skipped, not images in a class's folder, such as"
        print(f"warning: {problem} {min(skipped)!r}", flush=True)
    return images


def read_splits(
    images: Images, name: str, image_size: Sequence[int] | None, channels: int | None
) -> Iterator[tuple[str, SplitInfo, Batches]]:
    """Reads image files in parallel, ordered by the SHA-256 of their content.

    This order depends on neither names nor the file system, and files that are added or
    removed do not reorder the others.

    Yields:
      Each split with its metadata and its batches, to be consumed before the next.

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
    problems, example = [], None
    pool = ProcessPoolExecutor(None, None, _start_worker, [os.getpid()])
    try:
        for split, classes in images.items():
            labels = [n for n, c in enumerate(names) for _ in classes.get(c, [])]
            paths = [path for c in names for path in classes.get(c, [])]
            hashes = pool.map(sha256, paths, chunksize=TASK_FILES)
            hashes = tqdm(hashes, "hash", len(paths), unit="file", disable=None)
            files = sorted(zip(hashes, labels, paths, strict=True))
            if not example:
                results = ((path, read(path)) for _, _, path in files)
                readable = ((p, r.shape) for p, r in results if not isinstance(r, str))
                example = next(readable, ("", (1, 1, 1)))
            info = describe_split(name, "folder", example[1], names, len(files))
            yield split, info, _read_batches(pool, read, files, example, problems)
    finally:
        pool.shutdown(cancel_futures=True)
    if problems:
        print(*problems[:MAX_PROBLEMS], sep="\n", flush=True)
        found = f"{len(problems):,} of its files cannot be read; see the lines above"
        raise InputError(f"dataset = {name}: {found}")


def _read_batches(
    pool: ProcessPoolExecutor,
    read: Callable[[str], np.ndarray | str],
    files: list[tuple[str, int, str]],
    example: tuple[str, tuple[int, ...]],
    problems: list[str],
) -> Batches:
    """Reads files in other processes, one window of tasks after another.

    What cannot be read goes into `problems`, and becomes a black image.
    """
    first, shape = example
    task = max(1, min(TASK_FILES, TASK_BYTES // math.prod(shape)))
    for start in range(0, len(files), WINDOW_TASKS * task):
        window = files[start : start + WINDOW_TASKS * task]
        results = pool.map(read, [path for _, _, path in window], chunksize=task)
        for (_, label, path), pixels in zip(window, results, strict=True):
            if isinstance(pixels, str):
                problems.append(pixels)
                pixels = np.zeros(shape, np.uint8)
            elif pixels.shape != shape:
                key = "channels" if pixels.shape[:2] == shape[:2] else "image_size"
                raise InputError(
                    f"{PARAMS}: {key} = null: {first!r} has the shape {list(shape)}, "
                    f"{path!r} has {list(pixels.shape)}: set {key}"
                )
            yield pixels[np.newaxis], np.array([label])


def _read(
    path: str, image_size: Sequence[int] | None, channels: int | None
) -> np.ndarray | str:
    """Returns an image file as `[H, W, C]` uint8, or why it cannot be read."""
    try:
        image = read_image(path, channels)
    except InputError as error:
        return str(error)
    return np.atleast_3d(resize_image(image, image_size) if image_size else image)


def _start_worker(parent: int) -> None:
    """Leaves Ctrl-C to the parent, and ends with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=exit_with_parent, args=[parent], daemon=True).start()


def _visible(folder: Path) -> list[os.DirEntry]:
    if not folder.is_dir():
        return []
    return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]


def _is_image(entry: os.DirEntry) -> bool:
    return entry.name.lower().endswith(EXTENSIONS) and entry.is_file()
