"""Runs of the pipeline, as far as Git has them, and what two of them differ in."""

import csv
import hashlib
import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML

from core_mlp import comparing
from core_mlp.errors import InputError

WORKSPACE = "workspace"
# That the report, the gate and the model card name.
METRICS = {
    "train_epochs",
    "test_accuracy",
    "test_accuracy_low",
    "test_accuracy_high",
    "test_loss",
    "test_calibration_error",
}


class Mistake(NamedTuple):
    """A wrong answer of a model.

    Attributes:
      label: The true class.
      predicted: The class that it was taken for.
      confidence: The probability of that class.
    """

    label: str
    predicted: str
    confidence: float


class Run(NamedTuple):
    """A run of the pipeline, as far as it is in Git.

    Attributes:
      name: Of the revision.
      params: All of params.yaml.
      metrics: Of metrics/train.json and metrics/evaluate.json.
      history: Columns of plots/history.csv.
      class_names: Of the labels, in their order.
      confusion: Images of each pair of actual and predicted class.
      class_accuracies: Accuracy and its 95 % interval of each class.
      mistakes: Wrong answers by the index of the test image.
      test_split: What the model was tested on; None in a revision from before that.
      seeds: What `make seeds` has written; None without it.
      code: Digest of each file that training, export and evaluation depend on.
    """

    name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    history: dict[str, list[float]]
    class_names: list[str]
    confusion: dict[tuple[str, str], int]
    class_accuracies: dict[str, tuple[float, float, float]]
    mistakes: dict[int, Mistake]
    test_split: dict[str, Any] | None
    seeds: dict[str, Any] | None
    code: dict[str, str]

    @property
    def count(self) -> int:
        """Number of test images."""
        return sum(self.confusion.values())

    @property
    def identity(self) -> str:
        """Digest of what runs over several seeds have in common: all but the seed."""
        params = {key: value for key, value in self.params.items() if key != "seed"}
        facts = json.dumps([params, self.code], sort_keys=True, default=str)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    @property
    def has_own_seeds(self) -> bool:
        """Whether the results over several seeds are of these very settings."""
        return self.seeds is not None and self.seeds["identity"] == self.identity

    def count_of_class(self, name: str) -> int:
        """Returns the number of test images of a class."""
        return sum(n for (actual, _), n in self.confusion.items() if actual == name)


class Comparison(NamedTuple):
    """The answers of two runs to the same test images.

    Attributes:
      fixed: Indices of the images that only the new one has right, ascending.
      broken: Indices of the images that only the old one has right, ascending.
      accuracy: Difference of the two accuracies.
      classes: The same of each class, p-values corrected for their number.
    """

    fixed: list[int]
    broken: list[int]
    accuracy: comparing.Difference
    classes: dict[str, comparing.Difference]


def read_run(revision: str) -> Run:
    """Reads a run.

    Args:
      revision: As Git understands it, or `workspace`.

    Raises:
      InputError: If there is no such revision, or a file is missing or damaged in it.
    """
    read = _reader(revision)

    def read_required(path: str) -> str:
        content = read(path)
        if content is None:
            raise InputError(f"{revision}: no {path} in it")
        return content

    def read_csv(path: str) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(read_required(path))))

    def read_json(path: str) -> Any:
        content = read(path)
        return None if content is None else json.loads(content)

    try:
        history = read_csv("plots/history.csv")
        confusion = read_csv("plots/confusion.csv")
        lock = _load_yaml(read_required("dvc.lock"))
        metrics = json.loads(read_required("metrics/train.json")) | json.loads(
            read_required("metrics/evaluate.json")
        )
        if missing := METRICS - metrics.keys():
            raise InputError(f"{revision}: no {min(missing)} in its metrics")
        return Run(
            name=revision[:8] if re.fullmatch("[0-9a-f]{40}", revision) else revision,
            params=_load_yaml(read_required("params.yaml")),
            metrics=metrics,
            history={key: [float(row[key]) for row in history] for key in history[0]},
            class_names=list(dict.fromkeys(row["actual"] for row in confusion)),
            confusion={
                (row["actual"], row["predicted"]): int(row["count"])
                for row in confusion
            },
            class_accuracies={
                row["label"]: tuple(
                    float(row[key]) for key in ("accuracy", "low", "high")
                )
                for row in read_csv("plots/per_class.csv")
            },
            mistakes={
                int(row["index"]): Mistake(
                    row["label"], row["predicted"], float(row["confidence"])
                )
                for row in read_csv("plots/mistakes.csv")
            },
            test_split=read_json("metrics/test_split.json"),
            seeds=read_json("metrics/seeds.json"),
            code={
                dep["path"]: dep["md5"]
                for stage in ("train", "export", "evaluate")
                for dep in lock["stages"][stage]["deps"]
                if dep["path"].endswith(".py")
            },
        )
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{revision}: a file of its results is damaged: "
            f"{type(error).__name__}: {error}"
        ) from error


def why_not_comparable(base: Run, head: Run) -> str | None:
    """Returns why two runs cannot be compared image by image, or None if they can."""
    for run in (base, head):
        if run.test_split is None:
            return f"{run.name} does not say on which images it was tested"
    if base.test_split != head.test_split:
        values = [
            f"{run.name} on {run.test_split['dataset']} {run.test_split['version']}, "
            f"{run.test_split['num_examples']:,} images, SHA-256 "
            f"{run.test_split['sha256'][:12]}"
            for run in (base, head)
        ]
        return f"they were tested on different images: {' and '.join(values)}"
    return None


def compare(base: Run, head: Run) -> Comparison:
    """Pairs the answers of two runs to the same images."""
    fixed = sorted(base.mistakes.keys() - head.mistakes.keys())
    broken = sorted(head.mistakes.keys() - base.mistakes.keys())

    def count(indices: list[int], run: Run, name: str) -> int:
        return sum(run.mistakes[index].label == name for index in indices)

    classes = {
        name: comparing.paired_difference(
            count(fixed, base, name),
            count(broken, head, name),
            max(1, head.count_of_class(name)),
        )
        for name in head.class_names
    }
    adjusted = comparing.adjust_p_values([d.p_value for d in classes.values()])
    return Comparison(
        fixed,
        broken,
        comparing.paired_difference(len(fixed), len(broken), head.count),
        {
            name: difference._replace(p_value=p_value)
            for (name, difference), p_value in zip(
                classes.items(), adjusted, strict=True
            )
        },
    )


def _reader(revision: str) -> Callable[[str], str | None]:
    """Returns a function from a path to its text, or to None if there is no file."""
    if revision == WORKSPACE:

        def read_file(path: str) -> str | None:
            return Path(path).read_text("utf-8") if Path(path).exists() else None

        return read_file
    commit = _git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    if commit is None:
        raise InputError(f"{revision}: Git has no such revision here")
    return lambda path: _git("show", f"{commit.strip()}:{path}")


def _git(*arguments: str) -> str | None:
    """Returns what a Git command prints, or None if it fails."""
    result = subprocess.run(
        ["git", *arguments], capture_output=True, encoding="utf-8", check=False
    )
    return result.stdout if result.returncode == 0 else None


def _load_yaml(text: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(text)
