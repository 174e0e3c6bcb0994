"""The JSON files by which the stages describe their outputs to one another."""

from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from core_mlp.errors import InputError
from core_mlp.reports import write_json

ImageShape = tuple[PositiveInt, PositiveInt, PositiveInt]
ClassNames = Annotated[tuple[str, ...], Field(min_length=2)]


class Description(BaseModel):
    """A description that is written to, and read from, a JSON file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads and checks a description.

        Raises:
          InputError: If the file is not one that `write` has written.
          OSError: If it cannot be read.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise InputError(f"{path}: {key}: {first['msg']}") from error

    def write(self, path: Path) -> None:
        """Writes the description."""
        write_json(path, self.model_dump(mode="json"))


class DatasetInfo(Description):
    """What a folder of arrays or TFRecords holds.

    Attributes:
      dataset: TFDS's name, with the config if there is one.
      version: TFDS's version of the dataset.
      image_shape: Height, width and channels of every image.
      class_names: Name of each class; a label is an index into them.
      num_examples: Of each split.
    """

    dataset: str
    version: str
    image_shape: ImageShape
    class_names: ClassNames
    num_examples: dict[str, PositiveInt]


class NetworkInfo(Description):
    """What it takes to build the network that a checkpoint belongs to.

    Attributes:
      image_shape: Height, width and channels of its input.
      hidden_sizes: Units of each hidden layer.
      class_names: Name of each class, in the order of the logits.
    """

    image_shape: ImageShape
    hidden_sizes: tuple[PositiveInt, ...]
    class_names: ClassNames
