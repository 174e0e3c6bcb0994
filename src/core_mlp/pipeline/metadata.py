"""Metadata passed between stages, as JSON files."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
)

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.files import sha256, write_json
from core_mlp.pipeline.text import visible


def _check_class_name(name: Any) -> Any:
    """Raises ValueError for a name that CSV, terminals or TensorFlow cannot handle."""
    # Cc: control; Cs: a byte of a folder's name that is not UTF-8; Zl, Zp: line breaks.
    if isinstance(name, str):
        for character in name:
            if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
                raise ValueError(
                    f"the class name '{visible(name)}' has a control character or is "
                    "not UTF-8: rename the class"
                )
    return name


# Side of an image, or width of a layer.
Size = Annotated[int, Field(ge=1, le=65_536)]
Range = tuple[float, float]
ImageShape = tuple[Size, Size, Size]
ClassName = Annotated[str, BeforeValidator(_check_class_name)]
ClassNames = Annotated[tuple[ClassName, ...], Field(min_length=2)]


class Metadata(BaseModel):
    """Metadata that one stage writes and a later one reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the metadata; raises InputError if the file is corrupt."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise InputError(f"{path}: {first_problem(error)}") from error

    def write(self, path: Path) -> None:
        """Writes the metadata."""
        write_json(path, self.model_dump(mode="json"))


class SplitInfo(Metadata):
    """`info.json` of a split, which describes the files beside it.

    Attributes:
      dataset: Name of the dataset, with its config if there is one.
      image_shape: Height, width and channels of every image.
      class_names: Name of each class; a label is an index into them.
      drawing_side: In the train split, if its images are drawings that were all scaled
        to fit a square: its side in pixels.
      border: In the train split of the TFRecords: lowest and highest brightness, 0 to
        255, of the border of most images.
      sha256: Digest of each file in the folder, by its name.
    """

    dataset: str
    version: str
    image_shape: ImageShape
    class_names: ClassNames
    num_examples: PositiveInt
    drawing_side: Size | None = None
    border: Range | None = None
    sha256: dict[str, str] = {}

    @classmethod
    def read_split(cls, folder: Path) -> Self:
        """Reads the metadata of a split; raises InputError if a file is corrupt."""
        info = cls.read(folder / "info.json")
        for name, expected in info.sha256.items():
            found = sha256(folder / name)
            if found != expected:
                raise InputError(
                    f"{folder / name}: corrupt: its SHA-256 is {found}, but info.json "
                    f"has {expected}"
                )
        return info

    def write(self, path: Path) -> None:
        """Writes the metadata, without what is not known."""
        write_json(path, self.model_dump(mode="json", exclude_none=True))

    def write_split(self, folder: Path, known: Mapping[str, str] | None = None) -> Self:
        """Writes the metadata beside the files of a split, with their digests.

        Args:
          folder: The folder of the split.
          known: Digest of each file, by its name, that need not be read for it.
        """
        known = known or {}
        digests = {
            path.name: known.get(path.name) or sha256(path)
            for path in sorted(folder.iterdir())
        }
        info = self.model_copy(update={"sha256": digests})
        info.write(folder / "info.json")
        return info


class NetworkInfo(Metadata):
    """`network.json` of a model: what is needed to rebuild and use its network.

    Attributes:
      border: Lowest and highest brightness, 0 to 255, of the border of most training
        images.
      drawing_side: For a model of drawings: the side, in pixels, of the square that
        each of them was scaled to fit.
    """

    image_shape: ImageShape
    conv_filters: tuple[Size, ...] = ()
    hidden_sizes: tuple[Size, ...]
    class_names: ClassNames
    border: Range | None = None
    drawing_side: Size | None = None

    def write(self, path: Path) -> None:
        """Writes the metadata, without convolutions if there are none."""
        values = self.model_dump(mode="json")
        if not self.conv_filters:
            del values["conv_filters"]
        write_json(path, values)

    @classmethod
    def of(cls, info: SplitInfo, parameters: Mapping[str, Any]) -> Self:
        """Describes the network that is trained on a split.

        Args:
          info: Metadata of the split.
          parameters: Parameters of train; those that a field is named after are kept.
        """
        known = {name: v for name, v in parameters.items() if name in cls.model_fields}
        return cls(
            **known,
            image_shape=info.image_shape,
            class_names=info.class_names,
            border=info.border,
            drawing_side=info.drawing_side,
        )


def first_problem(error: ValidationError) -> str:
    """Returns the first problem of a validation error as one line."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    return f"{'.'.join(map(str, first['loc']))}: {message}"
