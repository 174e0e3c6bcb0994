"""Times an epoch of each contender, interleaved; keeps each call's rates in results/.

Every contender has its own process, which waits while another one is timed. In each
round every contender trains for about five seconds, at least one epoch. The first round
is a warm-up. A ratio is the median of the rounds' ratios, so that a slow phase of the
machine affects both of its numbers; the range is over the rounds. Contenders that
are not installed are omitted. Run it with `make bench`; `--summary` prints the tables
of earlier calls again.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
import time
from importlib import metadata
from pathlib import Path

import contenders
import serving
from contenders import Setting

TURN_SECONDS = 5.0
RESULTS = Path(__file__).parent / "results"
# Name: the function in contenders.py, the setting, the package that it needs.
BFLOAT16 = Setting(precision="bfloat16")
DEFAULT = {
    "ours": ("ours", Setting(), None),
    "ours, streaming": ("ours_streaming", Setting(), None),
    "guide's loop": ("guide", Setting(), None),
    "Keras fit": ("keras", Setting(), None),
    "PyTorch eager": ("pytorch", Setting(), "torch"),
    "PyTorch eager, fused Adam": ("pytorch_fused", Setting(), "torch"),
    "PyTorch compile, fused Adam": ("pytorch_compile", Setting(), "torch"),
    "JAX, jitted step": ("jax", Setting(), "jax"),
    "JAX, lax.scan": ("jax_scan", Setting(), "jax"),
    "ceiling": ("ceiling", Setting(), None),
    "ours, bfloat16": ("ours", BFLOAT16, None),
    "PyTorch eager, bfloat16": ("pytorch", BFLOAT16, "torch"),
    "ceiling, bfloat16": ("ceiling", BFLOAT16, None),
}
AUGMENTED = Setting(is_augmented=True)
AUGMENTED_BFLOAT16 = AUGMENTED._replace(precision="bfloat16")
AUGMENTATION = {
    "ours": ("ours", Setting(), None),
    "ours, augmented": ("ours", AUGMENTED, None),
    "Keras fit, augmented": ("keras", AUGMENTED, None),
    "PyTorch compile, fused Adam, augmented": ("pytorch_compile", AUGMENTED, "torch"),
    "ours, augmented, bfloat16": ("ours", AUGMENTED_BFLOAT16, None),
    "PyTorch compile, fused Adam, augmented, bfloat16": (
        "pytorch_compile",
        AUGMENTED_BFLOAT16,
        "torch",
    ),
}
CONVOLUTION = Setting(num_images=6_400, conv_filters=(32, 64), hidden_sizes=(128,))
CONVOLUTION_BFLOAT16 = CONVOLUTION._replace(precision="bfloat16")
CONVOLUTIONS = {
    "ours": ("ours", CONVOLUTION, None),
    "Keras fit": ("keras", CONVOLUTION, None),
    "PyTorch eager, fused Adam": ("pytorch_fused", CONVOLUTION, "torch"),
    "PyTorch compile, fused Adam": ("pytorch_compile", CONVOLUTION, "torch"),
    # Takes a hundred times as long.
    "JAX, lax.scan": ("jax_scan", CONVOLUTION._replace(num_images=640), "jax"),
    "ceiling": ("ceiling", CONVOLUTION, None),
    "ours, bfloat16": ("ours", CONVOLUTION_BFLOAT16, None),
    "PyTorch eager, bfloat16": ("pytorch", CONVOLUTION_BFLOAT16, "torch"),
    "ceiling, bfloat16": ("ceiling", CONVOLUTION_BFLOAT16, None),
}
LARGE = (2500, 2000, 1500, 1000, 500)
OTHERS = {
    "batch 32": Setting(num_images=12_800, batch_size=32),
    "batch 1024": Setting(batch_size=1024),
    "2500-2000-1500-1000-500-10": Setting(num_images=6_400, hidden_sizes=LARGE),
}
# Images per second of reading a folder of 20,000 pictures.
FOLDERS = {
    name: {
        "ours": ("ours_folder", setting, None),
        "TFDS ImageFolder": ("tfds_folder", setting, None),
        "Keras image_dataset_from_directory": ("keras_folder", setting, None),
    }
    for name, setting in {
        "folders": Setting(num_images=20_000),
        "folders 128": Setting(num_images=20_000, image_shape=(128, 128, 3)),
        "folders 128, JPEG": Setting(
            num_images=20_000, image_shape=(128, 128, 3), image_format="jpg"
        ),
    }.items()
}
GROUPS = {
    "batch 128": DEFAULT,
    "augmented": AUGMENTATION,
    "conv": CONVOLUTIONS,
    **{
        name: {"ours": ("ours", setting, None), "Keras fit": ("keras", setting, None)}
        for name, setting in OTHERS.items()
    },
    **FOLDERS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", choices=[*GROUPS, "serving"], help="one group of contenders"
    )
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    if arguments.summary:
        for path in sorted(RESULTS.glob("*[0-9].json")):
            print_call(path)
        return
    results = {"machine": describe_machine(), "rounds": rounds}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / time.strftime("%Y-%m-%d-%H%M.json")

    def keep(name: str, numbers: dict) -> None:
        results[name] = numbers
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")

    for name, contenders_of_group in GROUPS.items():
        if arguments.only in (None, name):
            installed = {
                k: v for k, v in contenders_of_group.items() if _is_installed(v[2])
            }
            keep(name, time_in_turns(installed, rounds))
    if arguments.only in (None, "serving"):
        keep("serving", serving.measure())
    print_call(path)


def describe_machine() -> dict[str, object]:
    """Returns the processor and packages, on which the numbers depend."""
    cpu = platform.processor()
    facts = {}
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        facts = dict(
            re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line
        )
        keys = ("model name", "cpu family", "model")
        cpu = ", ".join(f"{key} {facts[key]}" for key in keys if key in facts) or cpu
    packages = ("tensorflow", "keras", "torch", "jax", "ai-edge-litert")
    versions = {
        name: metadata.version(name) for name in packages if _is_installed(name)
    }
    flags = [flag for flag in facts.get("flags", "").split() if "bf16" in flag]
    return {"cpu": cpu, "flags": flags, "cores": os.cpu_count(), **versions}


def time_in_turns(entries: dict[str, tuple], rounds: int) -> dict[str, list[float]]:
    """Returns the images per second of each contender in each round."""
    context = multiprocessing.get_context("spawn")
    pipes = {}
    for name, (function, setting, _) in entries.items():
        pipes[name], end = context.Pipe()
        # Not daemons, which may not start processes of their own.
        context.Process(target=serve, args=(function, setting, end)).start()
        end.close()
    rates = {name: [] for name in entries}
    for index in range(rounds + 1):
        for name, pipe in pipes.items():
            try:
                pipe.send("turn")
                rate = round(pipe.recv())
            except (EOFError, BrokenPipeError, ConnectionResetError):
                for process in multiprocessing.active_children():
                    process.terminate()
                sys.exit(f"error: {name}: its process has ended, see above")
            label = f"round {index}" if index else "warm-up"
            print(f"{label}: {name}: {rate:,} images/s", flush=True)
            if index:
                rates[name].append(rate)
    for pipe in pipes.values():
        pipe.send(None)
    for process in multiprocessing.active_children():
        process.join()
    return rates


def serve(function: str, setting: Setting, pipe) -> None:
    """Trains for a turn at each request, and answers with the rate."""
    epochs = getattr(contenders, function)(setting)
    while pipe.recv():
        num_images, seconds = 0, 0.0
        while seconds < TURN_SECONDS:
            num_images += setting.num_images
            seconds += setting.num_images / next(epochs)
        pipe.send(num_images / seconds)


def print_call(path: Path) -> None:
    """Prints the tables of one call."""
    results = json.loads(path.read_text(encoding="utf-8"))
    print(f"\n{path.name}: {results['machine']}")
    for name in GROUPS:
        if name in results:
            print_table(name, results[name])
    for way, numbers in results.get("serving", {}).items():
        print(f"{way}: {', '.join(f'{v:,} {k}' for k, v in numbers.items())}")


def print_table(title: str, rates: dict[str, list[float]]) -> None:
    """Prints the medians, and the ratio of ours to each: median, lowest and highest."""
    print(f"\n| {title} | images/s | ours to it | range |\n|---|---|---|---|")
    augmented = ", augmented" if "ours, augmented" in rates else ""
    for name, values in rates.items():
        base = rates[f"ours{augmented}{', bfloat16' if 'bfloat16' in name else ''}"]
        ratios = sorted(a / b for a, b in zip(base, values, strict=True))
        rate, ratio = statistics.median(values), statistics.median(ratios)
        ends = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"| {name} | {rate:,.0f} | {ratio:.2f} | {ends} |")


def _is_installed(package: str | None) -> bool:
    try:
        return package is None or bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False


if __name__ == "__main__":
    main()
