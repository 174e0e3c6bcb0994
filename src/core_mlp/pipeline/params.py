"""Typed parameters of each stage; the only reader of params.yaml."""

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import read_yaml
from core_mlp.pipeline.metadata import Size

PARAMS_FILE = Path("params.yaml")

# A folder, or a TFDS name with or without config and version: emnist/letters:3.1.0
DATASET_NAME = (
    r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.+-]+)?(:[0-9]+\.[0-9]+\.[0-9]+)?$"
)
# Within these bounds, float32 rounds no positive fraction to 0, no decay rate to 1.
PositiveFraction = Annotated[float, Field(ge=1e-30, le=1.0)]
DecayRate = Annotated[float, Field(ge=0.0, le=0.999999)]


def _refuse_equal_values(value: Any) -> Any:
    """Rejects 1.0 and True, which `Literal` accepts as 1."""
    if isinstance(value, (bool, float)):
        raise ValueError("input should be 1 or 3")
    return value


Channels = Annotated[Literal[1, 3] | None, BeforeValidator(_refuse_equal_values)]


class StageParams(BaseModel):
    """Base class of the stages' parameters: exact types, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False
    )


class FetchParams(StageParams):
    """Parameters of the fetch stage."""

    dataset: Annotated[str, Field(pattern=DATASET_NAME)]
    image_size: Annotated[list[Size], Field(min_length=2, max_length=2)] | None = None
    channels: Channels = None


class AugmentationParams(StageParams):
    """How strongly `training.augmentation.augment` distorts; 0 means not at all."""

    rotation: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    scale: Annotated[float, Field(ge=0.0, le=0.9)] = 0.0
    shear: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    shift: Annotated[float, Field(ge=0.0, le=1000.0)] = 0.0
    elastic: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    smoothness: Annotated[float, Field(ge=0.1, le=1000.0)] = 4.0
    horizontal_flip: bool = False

    @property
    def is_on(self) -> bool:
        """Whether any image is changed."""
        return any(self.model_dump(exclude={"smoothness"}).values())


class PreprocessParams(StageParams):
    """Parameters of the preprocess stage."""

    validation_size: Annotated[int, Field(ge=1, le=2**31 - 1)]
    test_size: Annotated[int, Field(ge=1, le=2**31 - 1)] = 10_000


class TrainParams(StageParams):
    """Parameters of the train stage."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)]
    conv_filters: Annotated[list[Size], Field(max_length=16)] = []
    hidden_sizes: Annotated[list[Size], Field(max_length=64)]
    batch_size: Annotated[int, Field(ge=1, le=2**20)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    learning_rate: PositiveFraction
    beta_1: DecayRate
    beta_2: DecayRate
    epsilon: PositiveFraction
    precision: Literal["float32", "bfloat16"]
    memory_budget: Annotated[int, Field(ge=1, le=2**20)]
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: Annotated[float, Field(ge=0.0, le=100.0)] = 0.0
    ema_decay: DecayRate = 0.0
    patience: Annotated[int, Field(ge=0, le=100_000)] = 0
    class_weights: Literal["none", "balanced"] = "none"
    augmentation: AugmentationParams = AugmentationParams()


class ExportParams(StageParams):
    """Parameters of the export stage."""

    quantize: bool = True


class Params(ExportParams, TrainParams, PreprocessParams, FetchParams):
    """Every key of params.yaml. Evaluate has no parameters."""


Stage = TypeVar("Stage", bound=StageParams)


def load_params(stage_params: type[Stage], path: Path = PARAMS_FILE) -> Stage:
    """Validates params.yaml as a whole, and returns one stage's part of it.

    With the whole file validated, a bad value stops the first stage, not the last.

    Raises:
      InputError: If the file is not a YAML mapping, or a key is unknown, missing, of
        the wrong type or out of range. The message names file, key and value.
    """
    params = check_params(read_yaml(path), path)
    return stage_params(**params.model_dump(include=set(stage_params.model_fields)))


def check_params(values: dict[str, Any], source: Path) -> Params:
    """Checks the values of all parameters.

    Args:
      values: By key; those of a group are a mapping of their own.
      source: The file that an error names.

    Raises:
      InputError: As `load_params`.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_describe(details) for details in error.errors()[:3])
        raise InputError(f"{source}: {problems}") from error


def _describe(details: dict) -> str:
    """Returns one validation error as `key = value: what is allowed`."""
    key = ".".join(reprlib.repr(part).strip("'") for part in details["loc"])
    if details["type"] == "missing":
        return f"{key}: this key is missing"
    if details["type"] == "extra_forbidden":
        return f"{key}: unknown key; the keys are {', '.join(Params.model_fields)}"
    value = reprlib.repr(details["input"])
    if key == "image_size":
        return f"{key} = {value}: expected [height, width] in pixels, or nothing"
    if details["type"] == "string_pattern_mismatch":
        expected = "the name of a TFDS dataset, such as mnist, or of a folder"
        allowed = "letters, digits, '_', '.' and '-'"
        return f"{key} = {value}: expected {expected} in data/source ({allowed})"
    problem = details["msg"].removeprefix("Value error, ")
    return f"{key} = {value}: {problem[0].lower()}{problem[1:]}"
