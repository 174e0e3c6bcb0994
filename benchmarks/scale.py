"""Measures each stage on many pictures: time, peak memory, and bytes on disk.

    PYTHONPATH=. python benchmarks/scale.py NUM_PICTURES

Run it in a clone of this repository: it writes pictures of 64 x 64, RGB, into
data/source/scale, adds them to DVC, changes params.yaml, and runs the stages one after
another. Writes scale.csv. Delete the clone, and its DVC cache, afterward.
"""

import csv
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from ruamel.yaml import YAML

FOLDER = Path("data/source/scale")
SIDE = 64
NUM_CLASSES = 10
CHANGES = {
    "dataset": "scale",
    "memory_budget": 512,
    "epochs": 2,
}
STAGES = ("fetch", "preprocess", "train", "export", "evaluate")
PLACES = {
    "pictures": FOLDER,
    "data/raw": Path("data/raw"),
    "data/tfrecords": Path("data/tfrecords"),
    "DVC's cache": Path(".dvc/cache"),
}
COLUMNS = (
    "what",
    "seconds",
    "processor_seconds",
    "peak_MiB",
    "peak_MiB_without_files",
    "MiB",
)
POLL_SECONDS = 0.2
MIB = 2**20


def main() -> None:
    num_pictures = int(sys.argv[1])
    if not FOLDER.exists():
        with multiprocessing.Pool() as pool:
            pool.map(write_picture, range(num_pictures), chunksize=1000)
    yaml = YAML()
    params = yaml.load(Path("params.yaml"))
    params.update(CHANGES)
    yaml.dump(params, Path("params.yaml"))
    commands = {"dvc add": ["dvc", "add", "--quiet", FOLDER]}
    for stage in STAGES:
        commands[stage] = ["dvc", "repro", "--quiet", "--single-item", stage]
    with Path("scale.csv").open("w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, command in commands.items():
            writer.writerow([name, *measure(command), ""])
            file.flush()
        for name, size in sizes(PLACES).items():
            writer.writerow([name, "", "", "", "", size])
        set_links = ["dvc", "config", "--local", "cache.type", "hardlink,symlink"]
        subprocess.run(set_links, check=True)
        relink = ["dvc", "checkout", "--quiet", "--relink"]
        writer.writerow(["dvc checkout --relink", *measure(relink), ""])
        for name, size in sizes(PLACES).items():
            writer.writerow([f"{name}, with links", "", "", "", "", size])


def write_picture(index: int) -> None:
    """Writes a smooth picture with the color of its class."""
    rng = np.random.default_rng(index)
    label = index % NUM_CLASSES
    values = rng.integers(0, 128, [7, 7, 3]) + 12 * label
    path = FOLDER / str(label) / f"{index}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    image.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)


def measure(command: list[str]) -> tuple[int, int, int, int]:
    """Runs a command.

    Returns:
      Its seconds; seconds of processor time; the most memory, in MiB, that it and the
      processes below it had at one time; and the most that was not the content of
      files, which the system may drop when it needs the memory.
    """
    start = time.monotonic()
    start_used = processor_seconds()
    peak = anonymous = 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        own = psutil.Process(process.pid)
        memory = list(memory_of([own, *own.children(recursive=True)]))
        resident = sum(rss for rss, _ in memory)
        peak = max(peak, resident)
        anonymous = max(anonymous, resident - sum(shared for _, shared in memory))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        sys.exit(f"{command} failed")
    seconds = round(time.monotonic() - start)
    used = round(processor_seconds() - start_used)
    return seconds, used, peak // MIB, anonymous // MIB


def processor_seconds() -> float:
    """Returns the processor time of all processes that have been run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def memory_of(processes: Iterable[psutil.Process]) -> Iterable[tuple[int, int]]:
    """Yields the resident bytes of each process, and those of files among them."""
    for process in processes:
        try:
            memory = process.memory_info()
        except psutil.NoSuchProcess:
            continue
        yield memory.rss, memory.shared


def sizes(places: dict[str, Path]) -> dict[str, int]:
    """Returns the MiB on disk of each place; a file with two names counts once."""
    known = set()
    found = {}
    for name, place in places.items():
        size = 0
        for folder, _, names in os.walk(place):
            for file in names:
                status = os.lstat(Path(folder, file))
                if status.st_ino not in known:
                    size += 512 * status.st_blocks
                known.add(status.st_ino)
        found[name] = size // MIB
    return found


if __name__ == "__main__":
    main()
