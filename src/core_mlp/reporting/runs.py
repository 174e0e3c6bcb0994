"""Reads the results of a run from Git."""

import csv
import hashlib
import io
import math
import re
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from core_mlp.pipeline import provenance
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import canonical_json, parse_yaml
from core_mlp.pipeline.metadata import first_problem
from core_mlp.reporting import evidence
from core_mlp.reporting.git import reader
from core_mlp.reporting.significance import Summary
from core_mlp.results.evaluate import (
    CalibrationBin,
    ClassAccuracy,
    Confusion,
    Mistake,
)
from core_mlp.results.seeds import SeedResult
from core_mlp.results.train import EpochResult

# Whether a higher value of a metric is better, by the last part of its name. Only such
# metrics are compared.
IMPROVES_UPWARDS = {"accuracy": True, "loss": False, "error": False}
# Metrics that metrics/seeds.json summarizes.
SEED_METRICS = (
    "validation_accuracy",
    "test_accuracy",
    "test_loss",
    "test_calibration_error",
)
# Metrics that report, gate and model card need.
METRICS = {
    "train_epochs",
    "validation_loss",
    "test_accuracy_low",
    "test_accuracy_high",
    *SEED_METRICS,
}
TEST_SPLIT = "data/tfrecords/test"
METRICS_ADAPTER = TypeAdapter(dict[str, FiniteFloat])
PARAMS_ADAPTER = TypeAdapter(dict[str, Any])


def improves_upwards(metric: str) -> bool | None:
    """Tells whether a higher value of a metric is better; None if that is unknown.

    >>> improves_upwards("test_loss"), improves_upwards("train_epochs")
    (False, None)
    """
    return IMPROVES_UPWARDS.get(metric.rsplit("_", maxsplit=1)[-1])


class SeedRun(BaseModel):
    """Result of one seed: the metrics that are compared, and test accuracy by class."""

    seed: int
    metrics: dict[str, FiniteFloat]
    classes: dict[str, FiniteFloat] = {}


class Seeds(BaseModel):
    """Content of metrics/seeds.json.

    Attributes:
      identity: `Run.identity` of all runs.
      summary: Summary of each metric over the runs.
      runs: A result per seed.
    """

    identity: str
    summary: dict[str, Summary] = {}
    runs: Annotated[list[SeedRun], Field(min_length=2)]

    def rows(self) -> list[SeedResult]:
        """Returns the content of plots/seeds.csv: the metrics that are summarized."""
        return [
            SeedResult(
                metric=name,
                seed=run.seed,
                value=run.metrics[name],
                mean=summary.mean,
                low=math.nan if summary.low is None else summary.low,
                high=math.nan if summary.high is None else summary.high,
            )
            for name, summary in self.summary.items()
            for run in self.runs
            if name in run.metrics
        ]


class Run(NamedTuple):
    """A run of the pipeline, as far as it is in Git.

    Attributes:
      metrics: Content of metrics/train.json and metrics/evaluate.json.
      confusion: Number of images for each pair of actual and predicted class.
      mistakes: Misclassified images by their index in the test split.
      sprite: PNG of the misclassified images, if there is one.
      test_split: Hash of the test split.
      inputs: Hashes of the code and data that training, export and evaluation read.
      num_leaked: Number of test images that are also in the train split, if counted.
      seed_rows: Content of plots/seeds.csv, if it is there beside metrics/seeds.json.
    """

    name: str
    params: dict[str, Any]
    metrics: dict[str, float]
    history: list[EpochResult]
    confusion: dict[tuple[str, str], int]
    classes: list[ClassAccuracy]
    calibration: list[CalibrationBin]
    mistakes: dict[int, Mistake]
    sprite: bytes | None
    test_split: str
    seeds: Seeds | None
    inputs: dict[str, str]
    num_leaked: int = 0
    seed_rows: list[SeedResult] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, in the order of the labels."""
        return list(dict.fromkeys(actual for actual, _ in self.confusion))

    @property
    def count(self) -> int:
        """Number of test images."""
        return sum(self.confusion.values())

    @property
    def identity(self) -> str:
        """Hash of everything but the seed: equal for all seeds of one setting."""
        params = {key: value for key, value in self.params.items() if key != "seed"}
        content = canonical_json([params, self.inputs])
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def results(self) -> list[SeedRun]:
        """Results of all seeds if seeds.json has these settings, else of this run."""
        return self.seed_results or [self.own_result]

    @property
    def seed_results(self) -> list[SeedRun]:
        """Results in seeds.json; none if it has other settings."""
        if self.seeds and self.seeds.identity == self.identity:
            return self.seeds.runs
        return []

    @property
    def own_result(self) -> SeedRun:
        """Result of this run alone."""
        classes = {row.label: row.accuracy for row in self.classes}
        seed = self.params.get("seed", 0)
        metrics = {
            name: value
            for name, value in self.metrics.items()
            if improves_upwards(name) is not None
        }
        return SeedRun(seed=seed, metrics=metrics, classes=classes)


def read_run(
    revision: str | None, name: str | None = None, *, with_seeds: bool = True
) -> Run:
    """Reads the results of a run.

    Args:
      revision: A revision, an experiment by its name, or None for the workspace.
      name: What to call it; default: the revision.
      with_seeds: Whether to read metrics/seeds.json. An experiment has the file that
        it began with.

    Raises:
      InputError: If there is no such revision, a file is missing or corrupt, something
        was edited after the run, or results contradict each other.
    """
    read_file = reader(revision)
    name = name or revision or "workspace"
    name = name[:8] if re.fullmatch("[0-9a-f]{40}", name) else name
    contents = {}

    def read(path: str) -> bytes | None:
        content = read_file(path)
        if content is not None:
            contents[path] = content
        return content

    def parse(path: str, parser: Callable[[str], Any], *, required: bool = True) -> Any:
        content = read(path)
        if content is None:
            if required:
                raise InputError(f"{name}: {path} is missing")
            return None
        try:
            return parser(content.decode("utf-8"))
        # Whatever the parsers raise, the file is to blame.
        except Exception as error:
            known = isinstance(error, ValidationError)
            problem = first_problem(error) if known else repr(error)
            problem = " ".join(problem.split())
            raise InputError(f"{name}: {path} is corrupt: {problem}") from error

    def rows(file: str, row_type: type, *, required: bool = True) -> list | None:
        return parse(
            f"plots/{file}.csv",
            lambda text: _parse_rows(text, row_type),
            required=required,
        )

    lock = parse("dvc.lock", _parse_lock)
    run = Run(
        name=name,
        params=parse("params.yaml", _parse_params),
        metrics=parse("metrics/train.json", METRICS_ADAPTER.validate_json)
        | parse("metrics/evaluate.json", METRICS_ADAPTER.validate_json),
        history=rows("history", EpochResult),
        confusion={row[:2]: row.count for row in rows("confusion", Confusion)},
        classes=rows("per_class", ClassAccuracy),
        calibration=rows("calibration", CalibrationBin),
        mistakes={row.index: row for row in rows("mistakes", Mistake)},
        sprite=read("plots/mistakes_sprite.png"),
        test_split=lock.inputs[TEST_SPLIT],
        seeds=(
            parse("metrics/seeds.json", Seeds.model_validate_json, required=False)
            if with_seeds
            else None
        ),
        inputs=lock.inputs,
        num_leaked=parse("plots/data_problems.csv", _parse_leaked, required=False) or 0,
    )
    if missing := METRICS - run.metrics.keys():
        raise InputError(f"{name}: its metrics lack {min(missing)}")
    _check_params(run, lock.params)
    if lock.contradictions:
        raise InputError(
            f"{name}: the results of {', '.join(lock.contradictions)} were made with "
            "other parameters, code or data than dvc.lock says (`dvc exp save` and "
            "`dvc commit` run nothing): run `dvc repro --force`"
        )
    if run.seeds:
        run = run._replace(seed_rows=rows("seeds", SeedResult, required=False))
    evidence.check(run)
    evidence.check_hashes(name, contents, lock.outputs)
    return run


def _check_params(run: Run, locked: dict[str, Any]) -> None:
    """Raises InputError if a key of params.yaml differs from dvc.lock."""
    for key in sorted(run.params.keys() | locked.keys()):
        if key not in locked:
            raise InputError(
                f"{run.name}: {key} in params.yaml is not a parameter of any stage"
            )
        if canonical_json(run.params.get(key)) != canonical_json(locked[key]):
            raise InputError(
                f"{run.name}: {key} in params.yaml is not the one these results were "
                "made with: run `dvc repro` first"
            )


def flatten(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the parameters with those of a group as GROUP.KEY.

    >>> flatten({"a": 1, "b": {"c": 2, "d": 3}})
    {'a': 1, 'b.c': 2, 'b.d': 3}
    """
    flat = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{k}": v for k, v in flatten(value).items()}
        else:
            flat[key] = value
    return flat


class _Lock(NamedTuple):
    """Content of dvc.lock.

    Attributes:
      params: Parameters of all stages.
      inputs: Hashes of the code and data that training, export and evaluation read.
      outputs: Hashes of what the stages wrote.
      contradictions: Stages whose results were made with something else.
    """

    params: dict[str, Any]
    inputs: dict[str, str]
    outputs: dict[str, str]
    contradictions: list[str]


def _parse_lock(text: str) -> _Lock:
    stages = parse_yaml(text)["stages"]
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
    if TEST_SPLIT not in inputs:
        raise ValueError(f"evaluate does not depend on {TEST_SPLIT}")
    return _Lock(
        params=flatten(params),
        inputs=inputs,
        outputs={
            out["path"]: out["md5"]
            for stage in stages.values()
            for out in stage.get("outs", [])
        },
        contradictions=list(provenance.find_contradictions(stages)),
    )


def _parse_params(text: str) -> dict[str, Any]:
    return flatten(PARAMS_ADAPTER.validate_python(parse_yaml(text)))


def _parse_rows(text: str, row_type: type) -> list:
    """Returns the rows of a CSV as named tuples; further columns are ignored."""
    rows = csv.DictReader(io.StringIO(text), strict=True)
    columns = rows.fieldnames or ()
    fields = [name for name in row_type._fields if name in columns]
    if missing := {*row_type._fields} - {*fields, *row_type._field_defaults}:
        raise ValueError(f"no column {min(missing)}")
    adapter = TypeAdapter(list[row_type])
    return adapter.validate_python([{key: row[key] for key in fields} for row in rows])


def _parse_leaked(text: str) -> int:
    return int(re.search(r"^test,also in train,(\d+)$", text, re.M)[1])
