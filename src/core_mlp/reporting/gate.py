"""Quality thresholds from gate.yaml, decided by intervals."""

from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import parse_yaml
from core_mlp.pipeline.metadata import first_problem
from core_mlp.reporting.comparison import Comparison
from core_mlp.reporting.git import reader
from core_mlp.reporting.runs import Run
from core_mlp.reporting.significance import Difference, adjust_p_values

GATE_FILE = Path("gate.yaml")
# Outcomes of the two loss rules when there is no comparison over seeds.
OUTCOMES = {
    "no result changed": "pass",
    "same settings": "pass",
    "cannot be compared": "fail",
    "first impression": "investigate",
}

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Gate(BaseModel):
    """The thresholds, each in [0, 1]; gate.yaml explains them."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    min_accuracy: Fraction
    max_calibration_error: Fraction
    max_accuracy_loss: Fraction
    max_class_loss: Fraction


class Result(NamedTuple):
    """Result of one rule; "investigate" means that the data do not decide it."""

    rule: str
    outcome: Literal["pass", "fail", "investigate"]
    reason: str


def load(revision: str | None) -> Gate:
    """Reads the thresholds of a revision, or of the workspace.

    Raises:
      InputError: If the file is missing or corrupt, or a key is unknown, missing or out
        of range.
    """
    where = f"{revision}: {GATE_FILE}" if revision else GATE_FILE
    content = reader(revision)(str(GATE_FILE))
    if content is None:
        raise InputError(f"{where}: is missing")
    try:
        return Gate.model_validate(parse_yaml(content.decode("utf-8")))
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error)}") from error
    # As with params.yaml, the parser raises errors of many types.
    except Exception as error:
        raise InputError(f"{where}: not valid YAML") from error


def load_rules(base: str, head: str | None) -> tuple[Gate, str]:
    """Returns the base's thresholds, and how head's differ.

    A change cannot loosen its own thresholds, unless the base has other rules or none:
    then head's are used.
    """
    own = load(head)
    try:
        rules = load(base)
    except InputError:
        return own, f"{base} has other rules or none, so these are the change's own"
    edits = [
        f"{key}: {old} → {new}"
        for (key, old), new in zip(rules, own.model_dump().values(), strict=True)
        if old != new
    ]
    if not edits:
        return rules, ""
    changes = ", ".join(edits)
    return (
        rules,
        f"This change edits {GATE_FILE} ({changes}); the base's thresholds hold",
    )


def check(rules: Gate, head: Run, comparison: Comparison) -> list[Result]:
    """Checks a run, and its comparison with the base."""
    accuracy = head.metrics["test_accuracy"]
    low = head.metrics["test_accuracy_low"]
    high = head.metrics["test_accuracy_high"]
    error = head.metrics["test_calibration_error"]
    return [
        Result(
            "min_accuracy",
            _decide(low, high, rules.min_accuracy),
            f"{accuracy:.4f} ({low:.4f} to {high:.4f}), at least {rules.min_accuracy}",
        ),
        Result(
            "max_calibration_error",
            "pass" if error <= rules.max_calibration_error else "fail",
            f"{error:.4f}, at most {rules.max_calibration_error}",
        ),
        check_accuracy(rules.max_accuracy_loss, comparison),
        check_classes(rules.max_class_loss, comparison),
    ]


def _decide(low: float, high: float, minimum: float) -> str:
    if low >= minimum:
        return "pass"
    return "fail" if high < minimum else "investigate"


def check_accuracy(margin: float, comparison: Comparison) -> Result:
    if comparison.status != "compared":
        return _without_difference("max_accuracy_loss", comparison)
    difference = comparison.metrics["test_accuracy"]
    low, high = difference.interval()
    return Result(
        "max_accuracy_loss",
        _decide(low, high, -margin),
        f"{_describe_loss(difference)}, at most {margin}",
    )


def _describe_loss(difference: Difference, of_what: str = "") -> str:
    """Returns a loss with its interval, or says that all seeds have the same."""
    loss = f"a loss of {-difference.value:.4f}"
    if not difference.is_known:
        return f"{loss}{of_what}, the same in all seeds"
    low, high = difference.interval()
    return f"{loss} ({-high:.4f} to {-low:.4f}){of_what}"


def check_classes(margin: float, comparison: Comparison) -> Result:
    """Passes if every class's interval is above the margin; fails if one is below.

    The p-values are adjusted by Holm's method for the number of classes, and compared
    with one side of the look's level.

    A class that no seed on either side classifies differently, such as one without
    mistakes, has lost nothing.
    """
    rule = "max_class_loss"
    if comparison.status != "compared" or not comparison.classes:
        return _without_difference(rule, comparison)
    classes = {n: d for n, d in comparison.classes.items() if not d.is_unchanged}
    if not classes:
        return Result(rule, "pass", "every class has the same accuracy in all seeds")
    p_values = adjust_p_values([d.p_below(-margin) for d in classes.values()])
    lowest = int(np.argmin(p_values))
    name, difference = list(classes.items())[lowest]
    if p_values[lowest] < difference.level / 2:
        outcome = "fail"
    else:
        name = min(classes, key=lambda name: classes[name].interval()[0])
        passes = classes[name].interval()[0] >= -margin
        outcome = "pass" if passes else "investigate"
    found = _describe_loss(classes[name], f" for class {name}")
    return Result(rule, outcome, f"{found}, at most {margin}")


def _without_difference(rule: str, comparison: Comparison) -> Result:
    if comparison.status == "compared":
        return Result(rule, "investigate", "the results of the seeds have no classes")
    return Result(rule, OUTCOMES[comparison.status], comparison.reason)
