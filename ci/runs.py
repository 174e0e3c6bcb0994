"""Runs of the pipeline, as far as Git has them, and what two of them differ in."""

import csv
import hashlib
import io
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML

from core_mlp import comparing
from core_mlp.descriptions import TestSplit, first_problem
from core_mlp.errors import InputError

# That the report, the gate and the model card name.
METRICS = {
    "train_epochs",
    "test_accuracy",
    "test_accuracy_low",
    "test_accuracy_high",
    "test_loss",
    "test_calibration_error",
}
HISTORY = (
    *("epoch", "train_loss", "validation_loss"),
    *("train_accuracy", "validation_accuracy"),
)
# Metrics and plots are rounded.
TOLERANCE = 1e-5


class SeedRun(BaseModel):
    """What one seed has given.

    Attributes:
      seed: The parameter.
      metrics: Results on the test split.
    """

    seed: int
    metrics: dict[str, float]


class Seeds(BaseModel):
    """What `make seeds` has written; its summary is for readers.

    Attributes:
      identity: `Run.identity` of the runs.
      runs: One per seed.
    """

    identity: str
    runs: Annotated[list[SeedRun], Field(min_length=2)]


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
      params: All of params.yaml, as it was run.
      metrics: Of metrics/train.json and metrics/evaluate.json.
      history: Columns of plots/history.csv.
      class_names: Of the labels, in their order.
      confusion: Images of each pair of actual and predicted class.
      class_accuracies: Accuracy and its 95 % interval of each class.
      mistakes: Wrong answers by the index of the test image.
      test_split: What the model was tested on; None in a revision from before that.
      seeds: What `make seeds` has written; None without it.
      inputs: Digest of each file of code and data that training, export and evaluation
        depend on.
    """

    name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    history: dict[str, list[float]]
    class_names: list[str]
    confusion: dict[tuple[str, str], int]
    class_accuracies: dict[str, tuple[float, float, float]]
    mistakes: dict[int, Mistake]
    test_split: TestSplit | None
    seeds: Seeds | None
    inputs: dict[str, str]

    @property
    def count(self) -> int:
        """Number of test images."""
        return sum(self.confusion.values())

    @property
    def identity(self) -> str:
        """Digest of what runs over several seeds have in common: all but the seed."""
        params = {key: value for key, value in self.params.items() if key != "seed"}
        facts = json.dumps([params, self.inputs], sort_keys=True, default=str)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    @property
    def has_own_seeds(self) -> bool:
        """Whether the results over several seeds are of these very settings."""
        return self.seeds is not None and self.seeds.identity == self.identity

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


def read_run(revision: str | None) -> Run:
    """Reads a run.

    Args:
      revision: As Git understands it; None for the workspace.

    Raises:
      InputError: If there is no such revision, or a file is missing in it, damaged, or
        not of the same run as the others.
    """
    read = _reader(revision)
    name = revision or "workspace"
    name = name[:8] if re.fullmatch("[0-9a-f]{40}", name) else name

    def parse(path: str, parser: Callable[[str], Any], *, required: bool = True) -> Any:
        try:
            content = read(path)
            parsed = None if content is None else parser(content)
        # Whatever the parsers raise, it is the file that is damaged.
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            if isinstance(error, ValidationError):
                problem = first_problem(error)
            problem = " ".join(problem.split())
            raise InputError(f"{name}: {path} is damaged: {problem}") from error
        if required and content is None:
            raise InputError(f"{name}: no {path} in it")
        return parsed

    locked_params, inputs = parse("dvc.lock", _parse_lock)
    confusion = parse("plots/confusion.csv", _parse_confusion)
    run = Run(
        name=name,
        params=parse("params.yaml", lambda text: dict(_load_yaml(text))),
        metrics=parse("metrics/train.json", _parse_metrics)
        | parse("metrics/evaluate.json", _parse_metrics),
        history=parse("plots/history.csv", _parse_history),
        class_names=list(dict.fromkeys(actual for actual, _ in confusion)),
        confusion=confusion,
        class_accuracies=parse("plots/per_class.csv", _parse_class_accuracies),
        mistakes=parse("plots/mistakes.csv", _parse_mistakes),
        test_split=parse(
            "metrics/test_split.json", TestSplit.model_validate_json, required=False
        ),
        seeds=parse("metrics/seeds.json", Seeds.model_validate_json, required=False),
        inputs=inputs,
    )
    if missing := METRICS - run.metrics.keys():
        raise InputError(f"{name}: no {min(missing)} in its metrics")
    for key in sorted(run.params.keys() | locked_params.keys()):
        if run.params.get(key) != locked_params.get(key):
            raise InputError(
                f"{name}: its results are of other parameters than its params.yaml "
                f"({key}): run `dvc repro` first"
            )
    num_wrong = sum(n for (actual, guess), n in confusion.items() if actual != guess)
    share_right = 1 - num_wrong / run.count
    if (
        len(run.mistakes) != num_wrong
        or abs(run.metrics["test_accuracy"] - share_right) > TOLERANCE
    ):
        raise InputError(
            f"{name}: metrics/evaluate.json, plots/confusion.csv and "
            "plots/mistakes.csv are not of the same run"
        )
    return run


def why_not_comparable(base: Run, head: Run) -> str | None:
    """Returns why two runs cannot be compared image by image, or None if they can."""
    for run in (base, head):
        if run.test_split is None:
            return f"{run.name} does not say on which images it was tested"
    if base.test_split != head.test_split:
        values = [
            f"{name} on {split.dataset} {split.version}, "
            f"{split.num_examples:,} images, SHA-256 {split.sha256[:12]}"
            for name, split in ((run.name, run.test_split) for run in (base, head))
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


def _parse_lock(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the parameters of all stages, and the digests of code and data."""
    stages = _load_yaml(text)["stages"]
    params = {
        key: value
        for stage in stages.values()
        for key, value in stage.get("params", {}).get("params.yaml", {}).items()
    }
    inputs = {
        dep["path"]: dep["md5"]
        for stage in ("train", "export", "evaluate")
        for dep in stages[stage]["deps"]
        if not dep["path"].startswith("models/")  # Those are of one seed.
    }
    return params, inputs


def _parse_csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), strict=True))


def _parse_metrics(text: str) -> dict[str, float]:
    return TypeAdapter(dict[str, float]).validate_json(text)


def _parse_history(text: str) -> dict[str, list[float]]:
    rows = _parse_csv(text)
    history = {key: [float(row[key]) for row in rows] for key in HISTORY}
    if not rows:
        raise ValueError("no epoch")
    return history


def _parse_confusion(text: str) -> dict[tuple[str, str], int]:
    counts = {
        (row["actual"], row["predicted"]): int(row["count"]) for row in _parse_csv(text)
    }
    if not sum(counts.values()):
        raise ValueError("no image")
    return counts


def _parse_class_accuracies(text: str) -> dict[str, tuple[float, float, float]]:
    accuracies = {
        row["label"]: (float(row["accuracy"]), float(row["low"]), float(row["high"]))
        for row in _parse_csv(text)
    }
    if not accuracies:
        raise ValueError("no class")
    return accuracies


def _parse_mistakes(text: str) -> dict[int, Mistake]:
    return {
        int(row["index"]): Mistake(
            row["label"], row["predicted"], float(row["confidence"])
        )
        for row in _parse_csv(text)
    }


def _reader(revision: str | None) -> Callable[[str], str | None]:
    """Returns a function from a path to its text, or to None if there is no file."""
    if revision is None:

        def read_file(path: str) -> str | None:
            return Path(path).read_text("utf-8") if Path(path).exists() else None

        return read_file
    commit = _git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    # DVC keeps an experiment as refs/exps/BA/SELINE/NAME.
    experiments = f"refs/exps/*/*/{revision}"
    commits = (
        commit or _git("for-each-ref", "--format=%(objectname)", experiments) or ""
    ).split()
    if not commits:
        raise InputError(f"{revision}: Git has no such revision here")
    if len(commits) > 1:
        raise InputError(f"{revision}: several experiments are called that")
    return lambda path: _git("show", f"{commits[0]}:{path}")


def _git(*arguments: str) -> str | None:
    """Returns what a Git command prints, or None if it fails."""
    result = subprocess.run(
        ["git", *arguments], capture_output=True, encoding="utf-8", check=False
    )
    return result.stdout if result.returncode == 0 else None


def _load_yaml(text: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(text)
