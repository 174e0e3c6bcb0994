"""The space of a search: which values its parameters may take."""

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple, Self

import optuna
from pydantic import BaseModel, ConfigDict, ValidationError

from core_mlp.experiments.settings import to_setting
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import read_yaml
from core_mlp.pipeline.metadata import first_problem
from core_mlp.pipeline.params import PARAMS_FILE, check_params

# With other validation images, accuracies could not be compared; and the best seed says
# nothing about the next one.
FIXED = ("dataset", "validation_size", "test_size", "seed")
# Parameters that change nothing that validation can see.
UNSEEN = ("quantize", "memory_budget")
# Significant digits of a number that is drawn: what one would type.
DIGITS = 3
EXPECTED = "a list of choices, or {low: ..., high: ...} with log: true or step: ..."


class Range(BaseModel):
    """All numbers between two, or every `step`-th.

    Attributes:
      low: The smallest.
      high: The largest.
      log: Whether orders of magnitude are equally likely, not values.
      step: The difference between neighbors; None for any number.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    def problem(self) -> str:
        """Returns what is wrong with the range, or nothing."""
        if not self.low < self.high:
            return "low has to be below high"
        if self.log and self.low <= 0:
            return "with log, low has to be above 0"
        if self.log and self.step is not None:
            return "log and step exclude each other"
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            return "step has to be above 0, and no more than high - low"
        return ""


class Space(NamedTuple):
    """What a search varies.

    Attributes:
      path: The file that says so.
      choices: By parameter, the values to choose from.
      ranges: By parameter, the range of a number.
    """

    path: Path
    choices: dict[str, list[Any]]
    ranges: dict[str, Range]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads a space, and checks all its values as those of params.yaml.

        Args:
          path: YAML: by parameter, a list of choices or a range. A parameter of a
            group is GROUP.KEY, or in a mapping.

        Raises:
          InputError: If the space is empty, or has an unknown parameter or a value that
            params.yaml may not have.
        """
        params = read_yaml(PARAMS_FILE)
        check_params(params, PARAMS_FILE)
        space = cls(path, {}, {})
        for key, values in read_yaml(path).items():
            # A group may be a mapping of its own, as in params.yaml.
            if isinstance(values, dict) and isinstance(params.get(key), dict):
                for name, value in values.items():
                    space._add(f"{key}.{name}", value, params)
            else:
                space._add(str(key), values, params)
        if not space.choices and not space.ranges:
            raise InputError(f"{path}: empty: give a parameter several values")
        return space

    def _add(self, key: str, values: Any, params: dict[str, Any]) -> None:
        where = f"{self.path}: {key}"
        if key in FIXED:
            raise InputError(f"{where}: a search does not vary {', '.join(FIXED)}")
        if key in UNSEEN:
            raise InputError(f"{where}: it does not change the validation accuracy")
        if isinstance(values, list):
            if len(values) < 2:
                raise InputError(f"{where} = {values}: expected two choices or more")
            choices = [self._check(key, value, params) for value in values]
            if len({to_setting(key, value) for value in choices}) < len(choices):
                raise InputError(f"{where} = {values}: has a value twice")
            self.choices[key] = choices
            return
        if not isinstance(values, dict):
            raise InputError(f"{where} = {values}: expected {EXPECTED}")
        try:
            found = Range.model_validate(values)
        except ValidationError as error:
            raise InputError(
                f"{where}: {first_problem(error)}; expected {EXPECTED}"
            ) from error
        if problem := found.problem():
            raise InputError(f"{where}: {problem}")
        ends = [self._check(key, end, params) for end in (found.low, found.high)]
        if isinstance(ends[0], int) and isinstance(found.step or 1, float):
            raise InputError(f"{where}: step = {found.step}: expected an integer")
        self.ranges[key] = found.model_copy(update={"low": ends[0], "high": ends[1]})

    def _check(self, key: str, value: Any, params: dict[str, Any]) -> Any:
        """Returns a value of a parameter with the parameter's type.

        Raises:
          InputError: If params.yaml may not have it.
        """
        *groups, name = key.split(".")
        changed = copy.deepcopy(params)
        values = changed
        for group in groups:
            values = values.setdefault(group, {})
            if not isinstance(values, dict):
                raise InputError(f"{self.path}: {key}: unknown key")
        is_known = name in values
        values[name] = value
        found = check_params(changed, self.path).model_dump()
        if not is_known:  # `dvc exp run -S` changes only what is there.
            raise InputError(f"{self.path}: {key}: add it to {PARAMS_FILE} first")
        for part in (*groups, name):
            found = found[part]
        return found

    def draw(self, trial: optuna.Trial) -> tuple[str, ...]:
        """Draws a value of each parameter, as KEY=VALUE for `dvc exp run -S`."""
        settings = []
        for key, values in self.choices.items():
            # Optuna keeps numbers and text, but no lists.
            texts = [to_setting(key, value) for value in values]
            settings.append(trial.suggest_categorical(key, texts))
        for key, r in self.ranges.items():
            if isinstance(r.low, int):
                step = int(r.step or 1)
                value = trial.suggest_int(key, r.low, r.high, log=r.log, step=step)
            else:
                value = trial.suggest_float(key, r.low, r.high, log=r.log, step=r.step)
                # The sum of several steps may end in ...0000004.
                digits = 12 if r.step else DIGITS
                rounded = float(f"{value:.{digits}g}")
                value = min(max(rounded, r.low), r.high)
            settings.append(to_setting(key, value))
        return tuple(settings)

    def max_epochs(self, default: int) -> int:
        """Returns how many epochs a trial may have; `default` if that does not vary."""
        if "epochs" in self.ranges:
            return int(self.ranges["epochs"].high)
        return max(self.choices.get("epochs", [default]))

    def describe(self) -> str:
        """Returns the same text for the same space, as JSON."""
        ranges = {key: r.model_dump() for key, r in self.ranges.items()}
        return json.dumps([self.choices, ranges], sort_keys=True)
