"""Results of a run as Git has them, and the differences between two runs."""

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

from core_mlp.pipeline.metadata import first_problem
from core_mlp.pipeline.stage import InputError
from core_mlp.reporting import significance

# Metrics that report, gate and model card need.
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
TEST_SPLIT = "data/tfrecords/test"
# Metrics and plots are rounded.
TOLERANCE = 1e-5


class SeedRun(BaseModel):
    """Metrics on the test split, trained with one seed."""

    seed: int
    metrics: dict[str, float]


class Seeds(BaseModel):
    """Content of metrics/seeds.json: a result per seed, and `Run.identity` of all."""

    identity: str
    runs: Annotated[list[SeedRun], Field(min_length=2)]


class Mistake(NamedTuple):
    """A misclassified image: its actual and predicted class, and the confidence."""

    label: str
    predicted: str
    confidence: float


class Run(NamedTuple):
    """A run of the pipeline, as far as it is in Git.

    Attributes:
      metrics: Content of metrics/train.json and metrics/evaluate.json.
      history: Columns of plots/history.csv.
      confusion: Number of images of each pair of actual and predicted class.
      class_accuracies: Accuracy of each class and its 95 % interval.
      mistakes: Misclassified images by their index in the test split.
      test_split: Hash of the test split; None in a revision that does not record it.
      inputs: Hashes of the code and data that training, export and evaluation read.
    """

    name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    history: dict[str, list[float]]
    class_names: list[str]
    confusion: dict[tuple[str, str], int]
    class_accuracies: dict[str, tuple[float, float, float]]
    mistakes: dict[int, Mistake]
    test_split: str | None
    seeds: Seeds | None
    inputs: dict[str, str]

    @property
    def count(self) -> int:
        """Number of test images."""
        return sum(self.confusion.values())

    @property
    def identity(self) -> str:
        """Hash of everything but the seed: equal for all seeds of one setting."""
        params = {key: value for key, value in self.params.items() if key != "seed"}
        facts = json.dumps([params, self.inputs], sort_keys=True, default=str)
        return hashlib.sha256(facts.encode()).hexdigest()[:16]

    @property
    def has_own_seeds(self) -> bool:
        """Whether metrics/seeds.json is from these settings."""
        return self.seeds is not None and self.seeds.identity == self.identity

    def count_of_class(self, name: str) -> int:
        """Returns the number of test images of a class."""
        return sum(n for (actual, _), n in self.confusion.items() if actual == name)


class Comparison(NamedTuple):
    """Two runs compared image by image, overall and by class.

    Attributes:
      fixed: Indices of the images that only the new model classifies correctly.
      broken: Indices of the images that only the old model classifies correctly.
    """

    fixed: list[int]
    broken: list[int]
    accuracy: significance.Difference
    classes: dict[str, significance.Difference]


def read_run(revision: str | None) -> Run:
    """Reads a run.

    Args:
      revision: A Git revision or the name of an experiment; None for the workspace.

    Raises:
      InputError: If there is no such revision, or a file is missing, corrupt, or from
        another run than the others.
    """
    read = _reader(revision)
    name = revision or "workspace"
    name = name[:8] if re.fullmatch("[0-9a-f]{40}", name) else name

    def parse(path: str, parser: Callable[[str], Any], *, required: bool = True) -> Any:
        content = read(path)
        if content is None:
            if required:
                raise InputError(f"{name}: {path} is missing")
            return None
        try:
            return parser(content)
        # Whatever the parsers raise, the file is to blame.
        except Exception as error:
            problem = f"{type(error).__name__}: {error}"
            if isinstance(error, ValidationError):
                problem = first_problem(error)
            problem = " ".join(problem.split())
            raise InputError(f"{name}: {path} is corrupt: {problem}") from error

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
        test_split=inputs.get(TEST_SPLIT),
        seeds=parse("metrics/seeds.json", Seeds.model_validate_json, required=False),
        inputs=inputs,
    )
    if missing := METRICS - run.metrics.keys():
        raise InputError(f"{name}: its metrics lack {min(missing)}")
    for key in sorted(run.params.keys() | locked_params.keys()):
        if run.params.get(key) != locked_params.get(key):
            raise InputError(
                f"{name}: params.yaml has another {key} than the run that its results "
                "are from: run `dvc repro` first"
            )
    num_wrong = sum(n for (actual, guess), n in confusion.items() if actual != guess)
    if (
        len(run.mistakes) != num_wrong
        or abs(run.metrics["test_accuracy"] - (1 - num_wrong / run.count)) > TOLERANCE
    ):
        raise InputError(
            f"{name}: metrics/evaluate.json, plots/confusion.csv and "
            "plots/mistakes.csv are from different runs"
        )
    return run


def why_not_comparable(base: Run, head: Run) -> str | None:
    """Returns why two runs cannot be compared image by image, or None if they can."""
    for run in (base, head):
        if run.test_split is None:
            return f"{run.name} does not record which images it was tested on"
    if base.test_split != head.test_split:
        return (
            f"they were tested on different images: {base.name} on {base.count:,} of "
            f"{base.params['dataset']}, {head.name} on {head.count:,} of "
            f"{head.params['dataset']}"
        )
    return None


def compare(base: Run, head: Run) -> Comparison:
    """Compares the predictions of two runs on the same images."""
    fixed = sorted(base.mistakes.keys() - head.mistakes.keys())
    broken = sorted(head.mistakes.keys() - base.mistakes.keys())

    def count(indices: list[int], run: Run, name: str) -> int:
        return sum(run.mistakes[index].label == name for index in indices)

    classes = {
        name: significance.paired_difference(
            count(fixed, base, name),
            count(broken, head, name),
            max(1, head.count_of_class(name)),
        )
        for name in head.class_names
    }
    adjusted = significance.adjust_p_values([d.p_value for d in classes.values()])
    return Comparison(
        fixed,
        broken,
        significance.paired_difference(len(fixed), len(broken), head.count),
        {
            name: difference._replace(p_value=p_value)
            for (name, difference), p_value in zip(
                classes.items(), adjusted, strict=True
            )
        },
    )


def git(*arguments: str) -> str | None:
    """Returns what a Git command prints, or None if it fails."""
    result = subprocess.run(
        ["git", *arguments], capture_output=True, encoding="utf-8", check=False
    )
    return result.stdout if result.returncode == 0 else None


def resolve(revision: str) -> str:
    """Returns the commit of a revision, or of an experiment by its name.

    Raises:
      InputError: If there is none, or several experiments have the name.
    """
    commit = git(
        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"
    )
    # DVC keeps an experiment as refs/exps/BA/SELINE/NAME.
    experiments = f"refs/exps/*/*/{revision}"
    commits = (
        commit or git("for-each-ref", "--format=%(objectname)", experiments) or ""
    ).split()
    if not commits:
        raise InputError(f"{revision}: no such revision or experiment")
    if len(commits) > 1:
        raise InputError(f"{revision}: several experiments have this name")
    return commits[0]


def _reader(revision: str | None) -> Callable[[str], str | None]:
    """Returns a function from a path to its text, or to None if there is no file."""
    if revision is None:
        return lambda p: Path(p).read_text("utf-8") if Path(p).exists() else None
    commit = resolve(revision)
    return lambda path: git("show", f"{commit}:{path}")


def _parse_lock(text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns the parameters of all stages, and the hashes of code and data."""
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
        if not dep["path"].startswith("models/")  # These differ from seed to seed.
    }
    return params, inputs


def _rows(text: str) -> list[dict[str, str]]:
    if rows := list(csv.DictReader(io.StringIO(text), strict=True)):
        return rows
    raise ValueError("no rows")


def _parse_metrics(text: str) -> dict[str, float]:
    return TypeAdapter(dict[str, float]).validate_json(text)


def _parse_history(text: str) -> dict[str, list[float]]:
    return {key: [float(row[key]) for row in _rows(text)] for key in HISTORY}


def _parse_confusion(text: str) -> dict[tuple[str, str], int]:
    return {(r["actual"], r["predicted"]): int(r["count"]) for r in _rows(text)}


def _parse_class_accuracies(text: str) -> dict[str, tuple[float, float, float]]:
    columns = ("accuracy", "low", "high")
    return {r["label"]: tuple(float(r[c]) for c in columns) for r in _rows(text)}


def _parse_mistakes(text: str) -> dict[int, Mistake]:
    return {
        int(r["index"]): Mistake(r["label"], r["predicted"], float(r["confidence"]))
        for r in csv.DictReader(io.StringIO(text), strict=True)
    }


def _load_yaml(text: str) -> dict[str, Any]:
    return YAML(typ="safe", pure=True).load(text)
