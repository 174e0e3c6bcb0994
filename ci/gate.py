"""The rules that a result has to keep."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML

from ci.markdown import escape
from ci.runs import Comparison, Run
from core_mlp.descriptions import first_problem
from core_mlp.errors import InputError

PATH = Path("ci/gate.yaml")

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Gate(BaseModel):
    """The thresholds; each is a share, 0 to 1, and explained in ci/gate.yaml."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    min_accuracy_low: Share
    min_class_accuracy: Share
    max_calibration_error: Share
    max_accuracy_loss: Share


class Result(NamedTuple):
    """What a rule says of a run.

    Attributes:
      rule: Its key.
      outcome: `investigate` is for what one test set cannot decide.
      reason: Found and allowed.
    """

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
    # As params.yaml: the parser lets pass whatever its parts raise.
    except Exception as error:
        raise InputError(
            f"{path}: not a YAML mapping of rules to thresholds"
        ) from error
    try:
        return Gate.model_validate(rules)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from error


def check(rules: Gate, head: Run, comparison: Comparison | None) -> list[Result]:
    """Checks a run against the rules.

    Args:
      rules: The thresholds.
      head: The run.
      comparison: With its base; None if the two cannot be compared.
    """
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


def describe(results: list[Result]) -> list[str]:
    """Returns the results as a Markdown table."""
    if not results:
        return []
    rows = [f"| `{r.rule}` | **{r.outcome}** | {escape(r.reason)} |" for r in results]
    return [
        "### Gate",
        "\n".join(["| rule | outcome | found |", "|:--|:--|:--|", *rows]),
    ]


def _check_classes(minimum: float, head: Run) -> Result:
    """Fails where a class is below the minimum with its whole interval."""
    worst_first = sorted(head.class_accuracies.items(), key=lambda item: item[1][0])
    surely_below = [item for item in worst_first if item[1][2] < minimum]
    name, (accuracy, low, high) = (surely_below or worst_first)[0]
    outcome = "pass" if accuracy >= minimum else "investigate"
    return Result(
        "min_class_accuracy",
        "fail" if surely_below else outcome,
        f"{accuracy:.4f} ({low:.4f} to {high:.4f}) for class {name}, "
        f"at least {minimum}",
    )


def _check_loss(maximum: float, comparison: Comparison | None) -> Result:
    if comparison is None:
        return Result("max_accuracy_loss", "investigate", "there is nothing to compare")
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
