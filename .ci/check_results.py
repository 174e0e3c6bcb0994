"""Checks metrics/ and plots/ in CI, after the evaluation was repeated.

    python .ci/check_results.py [--pulled]

They must equal those in Git's HEAD byte for byte, with two exceptions. Another kind of
processor trains different weights: then the metrics may differ by the noise of
training, but the plots of the data stages must not differ. With --pulled, the weights
are from a DVC remote: then another kind of processor may round differently.
"""

import csv
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

LOCK = Path("dvc.lock")
FOLDERS = ("metrics", "plots")
TRAINED_STAGES = ("train", "export", "evaluate")
# Allowed difference between two runs, in its standard deviations: chance exceeds it
# once in a million comparisons.
NUM_DEVIATIONS = 5
# Less than one image in 10,000.
ROUNDING = 5e-5
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")


class Noise(NamedTuple):
    """Standard deviations of the metrics of one run.

    Attributes:
      of_seeds: Those in metrics/seeds.json.
      num_images: Size of the test split, from which the others are computed.
    """

    of_seeds: dict[str, float]
    num_images: int

    @classmethod
    def read(cls) -> "Noise":
        """Reads them from Git's HEAD."""
        summary = json.loads(committed("metrics/seeds.json") or b"{}").get(
            "summary", {}
        )
        rows = read_rows(committed("plots/per_class.csv") or b"")
        num_images = sum(int(row["count"]) for row in rows)
        return cls({k: v["sd"] for k, v in summary.items()}, num_images)

    def allowed(self, name: str, metrics: dict[str, float]) -> tuple[float, str] | None:
        """Returns by how much a metric may differ, and why; None if it is not known.

        Args:
          name: A key of metrics.
          metrics: All metrics of one file.
        """
        if self.of_seeds.get(name):
            deviation, source = self.of_seeds[name], "metrics/seeds.json"
        else:
            kind = name.rpartition("_")[2]
            accuracy = metrics.get(name.replace("_loss", "_accuracy"))
            if kind not in ("accuracy", "loss") or accuracy is None:
                return None
            # Binomial; a loss varies about as much as the number of mistakes. There is
            # noise even if no image, or every image, is a mistake.
            mistakes = self.num_images * (1 - accuracy)
            mistakes = min(max(1.0, mistakes), self.num_images - 1)
            if kind == "loss":
                deviation = metrics[name] / math.sqrt(mistakes)
            else:
                share = mistakes / self.num_images
                deviation = math.sqrt(share * (1 - share) / self.num_images)
            source = "the size of the test split"
        allowed = NUM_DEVIATIONS * math.sqrt(2) * deviation
        return allowed, f"{NUM_DEVIATIONS} sd of a difference, by {source}"


def committed(path: str) -> bytes | None:
    """Returns a file of Git's HEAD, or None if it is not there."""
    # "./" makes it relative to this folder, which may be part of a larger repository.
    result = subprocess.run(["git", "show", f"HEAD:./{path}"], capture_output=True)
    return result.stdout if result.returncode == 0 else None


def result_files() -> list[str]:
    """Returns the paths of all files in metrics/ and plots/, in HEAD or here."""
    command = ["git", "ls-tree", "-r", "-z", "--name-only", "HEAD", "--", *FOLDERS]
    names = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    here = [path for folder in FOLDERS for path in Path(folder).rglob("*")]
    files = {p.as_posix() for p in here if p.is_file() and not p.name.startswith(".")}
    return sorted(files | set(filter(None, names.split("\0"))))


def read_rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"))))


def numbers_of(path: str, content: bytes) -> dict[str, float]:
    """Returns the metrics in a JSON file, or in the last row of plots/history.csv."""
    if path.endswith(".json"):
        values = json.loads(content)
    else:
        values = {k: float(v) for k, v in read_rows(content)[-1].items()}
    return {k: v for k, v in values.items() if isinstance(v, int | float)}


def beyond_noise(path: str, old: bytes, new: bytes, noise: Noise) -> Iterator[str]:
    """Yields the metrics in a file that differ by more than the noise of training."""
    old_metrics, new_metrics = numbers_of(path, old), numbers_of(path, new)
    if old_metrics.keys() != new_metrics.keys():
        yield f"{path}: other metrics than in HEAD"
        return
    for name, value in old_metrics.items():
        difference = abs(new_metrics[name] - value)
        found = noise.allowed(name, new_metrics)
        if found and not difference <= found[0]:
            allowed, why = found
            yield (
                f"{path}: {name}: {value} in HEAD, {new_metrics[name]} here: more than "
                f"{allowed:.6f} ({why})"
            )


def is_rounding(path: str, old: bytes, new: bytes) -> bool:
    """Returns whether two texts differ only in the last digits of their numbers.

    Pictures of the mistakes show such numbers, and are not compared.
    """
    if path.endswith(".png"):
        return True
    old_text = old.decode("utf-8")
    new_text = new.decode("utf-8")
    if NUMBER.sub("", old_text) != NUMBER.sub("", new_text):
        return False
    old_numbers = [float(number) for number in NUMBER.findall(old_text)]
    new_numbers = [float(number) for number in NUMBER.findall(new_text)]
    return all(
        math.isclose(a, b, rel_tol=ROUNDING, abs_tol=2e-6)
        for a, b in zip(old_numbers, new_numbers, strict=True)
    )


def weights_of(stages: dict) -> str:
    """Returns the MD5 of the trained weights."""
    outs = {out["path"]: out["md5"] for out in stages["train"]["outs"]}
    return outs["models/checkpoint"]


def find_problems(stages_in_head: dict, stages: dict, pulled: bool) -> Iterator[str]:
    """Yields a line for each file, or metric, that differs although it should not."""
    same_weights = weights_of(stages_in_head) == weights_of(stages)
    if not same_weights:
        print("This processor trained other weights: compares metrics as between seeds")
    trained = {o["path"] for s in TRAINED_STAGES for o in stages[s].get("outs", [])}
    noise = Noise.read()
    for path in result_files():
        old = committed(path)
        new = Path(path).read_bytes() if Path(path).is_file() else None
        if old == new:
            continue
        if old is None or new is None:
            yield f"{path}: only {'here' if old is None else 'in HEAD'}"
        elif path not in trained or (same_weights and not pulled):
            yield f"{path}: differs from HEAD"
        elif same_weights:
            if not is_rounding(path, old, new):
                yield f"{path}: differs from HEAD by more than rounding"
        elif path.startswith("metrics/") or path == "plots/history.csv":
            yield from beyond_noise(path, old, new, noise)


def main() -> None:
    try:
        locks = [committed(str(LOCK)) or b"", LOCK.read_bytes()]
        stages_in_head, stages = (yaml.safe_load(text)["stages"] for text in locks)
        pulled = "--pulled" in sys.argv
        problems = list(find_problems(stages_in_head, stages, pulled))
    # Half a file, or one that does not belong to the others.
    except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        sys.exit(f"error: results or {LOCK} are corrupt: {error!r}")
    except yaml.YAMLError:
        sys.exit(f"error: {LOCK} is corrupt")
    if problems:
        print("\n".join(problems))
        sys.exit(
            "error: metrics/ or plots/ are not what this commit gives; run `dvc repro "
            "--force` and commit the results"
        )
    print("The evaluation gave the metrics and plots in HEAD")


if __name__ == "__main__":
    main()
