"""The JSON files by which the stages describe their outputs to one another."""

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
)

from core_mlp.errors import InputError
from core_mlp.reports import write_json


def _check_unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError("two classes of one name")
    return names


# Of an image's side, and of a layer.
Size = Annotated[int, Field(ge=1, le=65_536)]
ImageShape = tuple[Size, Size, Size]
ClassNames = Annotated[
    tuple[str, ...], Field(min_length=2), AfterValidator(_check_unique)
]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]


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
            raise InputError(f"{path}: {first_problem(error)}") from error

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
      sha256: Digest of each file beside the description, by its name; the name begins
        with that of the split.
    """

    dataset: str
    version: str
    image_shape: ImageShape
    class_names: ClassNames
    num_examples: dict[str, PositiveInt]
    sha256: dict[FileName, str] = {}

    def with_digests(self, folder: Path) -> Self:
        """Returns the description with the digests of the files in a folder."""
        paths = sorted(folder.iterdir())
        return self.model_copy(
            update={"sha256": {path.name: _digest(path) for path in paths}}
        )

    def digest_of(self, split: str) -> str:
        """Returns one SHA-256 for all files of a split."""
        digests = [v for name, v in self.sha256.items() if name.startswith(split)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def check_files(self, folder: Path, split: str) -> None:
        """Checks that the files of a split are the ones that were described.

        Raises:
          InputError: If there is no such split, or a file is another one.
          OSError: If a file cannot be read.
        """
        names = [name for name in self.sha256 if name.startswith(split)]
        if split not in self.num_examples or not names:
            raise InputError(f"{folder}: its description has no files of {split}")
        for name in names:
            found = _digest(folder / name)
            if found != self.sha256[name]:
                raise InputError(
                    f"{folder / name}: damaged, or of another dataset: its SHA-256 is "
                    f"{found}; its description has {self.sha256[name]}"
                )


class TestSplit(Description):
    """Which images a model was tested on; by it two models can be compared.

    Attributes:
      dataset: TFDS's name, with the config if there is one.
      version: TFDS's version of the dataset.
      image_shape: Height, width and channels of every image.
      num_examples: Number of images.
      sha256: One digest of the files of the split.
    """

    dataset: str
    version: str
    image_shape: ImageShape
    num_examples: PositiveInt
    sha256: str


class NetworkInfo(Description):
    """What it takes to build the network that a checkpoint belongs to.

    Attributes:
      image_shape: Height, width and channels of its input.
      hidden_sizes: Units of each hidden layer.
      class_names: Name of each class, in the order of the logits.
    """

    image_shape: ImageShape
    hidden_sizes: tuple[Size, ...]
    class_names: ClassNames


def first_problem(error: ValidationError) -> str:
    """Returns the first of the problems of a description as one line."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
