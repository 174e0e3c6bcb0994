"""Quality thresholds from gate.yaml."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML

from core_mlp.pipeline.metadata import first_problem
from core_mlp.pipeline.stage import InputError
from core_mlp.reporting.document import Block, Heading, Table
from core_mlp.reporting.runs import Comparison, Run

PATH = Path("gate.yaml")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Gate(BaseModel):
    """The thresholds, each in [0, 1]; gate.yaml explains them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    min_accuracy_low: Fraction
    min_class_accuracy: Fraction
    max_calibration_error: Fraction
    max_accuracy_loss: Fraction


class Result(NamedTuple):
    """Result of one rule; `investigate` means that one test set cannot decide."""

    rule: str
    outcome: Literal["pass", "fail", "investigate"]
    reason: str


def load(path: Path = PATH) -> Gate:
    """Reads the thresholds.

    Raises:
      InputError: If a key is unknown, missing or out of range.
      OSError: If the file cannot be read.
    """
    content = path.read_bytes()
    try:
        rules = dict(YAML(typ="safe", pure=True).load(content.decode("utf-8")))
    # As for params.yaml, the parser raises many things.
    except Exception as error:
        raise InputError(
            f"{path}: not a YAML mapping of rules to thresholds"
        ) from error
    try:
        return Gate.model_validate(rules)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from error


def check(rules: Gate, head: Run, comparison: Comparison | None) -> list[Result]:
    """Checks a run, and its comparison with a base if there is one."""
    low = head.metrics["test_accuracy_low"]
    error = head.metrics["test_calibration_error"]
    return [
        Result(
            "min_accuracy_low",
            "pass" if low >= rules.min_accuracy_low else "fail",
            f"{low:.4f}, at least {rules.min_accuracy_low}",
        ),
        _check_classes(rules.min_class_accuracy, head),
        Result(
            "max_calibration_error",
            "pass" if error <= rules.max_calibration_error else "fail",
            f"{error:.4f}, at most {rules.max_calibration_error}",
        ),
        _check_loss(rules.max_accuracy_loss, comparison),
    ]


def describe(results: list[Result]) -> list[Block]:
    """Returns the results as a section of the report."""
    if not results:
        return []
    return [Heading("Gate"), Table(["rule", "outcome", "found"], results)]


def _check_classes(minimum: float, head: Run) -> Result:
    """Fails if the whole interval of a class is below the minimum."""
    worst_first = sorted(head.class_accuracies.items(), key=lambda item: item[1][0])
    clearly_below = [item for item in worst_first if item[1][2] < minimum]
    name, (accuracy, low, high) = (clearly_below or worst_first)[0]
    outcome = "pass" if accuracy >= minimum else "investigate"
    return Result(
        "min_class_accuracy",
        "fail" if clearly_below else outcome,
        f"{accuracy:.4f} ({low:.4f} to {high:.4f}) for class {name}, "
        f"at least {minimum}",
    )


def _check_loss(maximum: float, comparison: Comparison | None) -> Result:
    if comparison is None:
        return Result("max_accuracy_loss", "investigate", "no comparison is possible")
    difference = comparison.accuracy
    outcome = "pass"
    if -difference.value > maximum:
        outcome = "fail" if difference.is_significant else "investigate"
    return Result(
        "max_accuracy_loss",
        outcome,
        f"{difference.value:+.4f} (p = {difference.p_value:.2g}), a loss of at most "
        f"{maximum}",
    )
