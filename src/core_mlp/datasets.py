"""Datasets from TFDS, as arrays."""

import gzip
import hashlib
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from pydantic import ValidationError

from core_mlp.descriptions import DatasetInfo, first_problem
from core_mlp.errors import InputError

READ_BATCH_SIZE = 1024
NUM_PARALLEL_DECODES = 16
# MNIST and its relatives: the original files that hold nothing but the labels.
LABEL_ARCHIVES = {
    "train": "train-labels-idx1-ubyte.gz",
    "test": "t10k-labels-idx1-ubyte.gz",
}
LABEL_ARCHIVE_HEADER_BYTES = 8


class SklearnDigits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn carries.

    Its last 360 digits are the test split: most are by other writers than the rest.
    """

    VERSION = tfds.core.Version("1.0.0")
    NUM_TRAIN = 1437

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="1,797 handwritten digits of 8x8 pixels.",
            homepage="https://archive.ics.uci.edu/dataset/80",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator]:
        # Here, because no other dataset needs it: it takes a second to import.
        from sklearn.datasets import load_digits

        digits = load_digits()
        # scikit-learn has 17 grey levels, 0 to 16.
        images = np.round(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
        examples = list(zip(images, digits.target, strict=True))
        return {
            "train": self._generate_examples(examples[: self.NUM_TRAIN]),
            "test": self._generate_examples(examples[self.NUM_TRAIN :]),
        }

    def _generate_examples(self, examples: list[tuple]) -> Iterator[tuple[int, dict]]:
        for index, (image, label) in enumerate(examples):
            yield index, {"image": image, "label": int(label)}


def find_dataset(
    name: str, archives_dir: Path
) -> tuple[tfds.core.DatasetBuilder, Path]:
    """Finds a dataset of TFDS, or one of this module.

    TFDS finds a prepared dataset by its name alone. Here its folder also depends on
    TFDS's version and on the content of the archives, so that data prepared from other
    files, or by another program, is never used.

    Args:
      name: TFDS's name of the dataset, or `sklearn_digits`.
      archives_dir: Has a folder for each dataset, with the original files; need not
        exist.

    Returns:
      The builder, and the dataset's folder in `archives_dir`.

    Raises:
      InputError: If there is none of that name, or it has no images and labels of the
        kind that this pipeline takes.
    """
    archives = archives_dir / re.split("[/:]", name)[0]
    digest = hashlib.sha256(tfds.__version__.encode())
    for path in sorted(path for path in archives.rglob("*") if path.is_file()):
        digest.update(path.relative_to(archives).as_posix().encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    try:
        builder = tfds.builder(name, data_dir=cache_dir() / digest.hexdigest()[:16])
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(
            f"dataset = {name}: neither TFDS nor {__name__} has a dataset of that name"
        ) from error
    # An unknown version or config, or a damaged folder: builders raise all sorts.
    except Exception as error:
        raise InputError(f"dataset = {name}: {_describe(error)}") from error
    _check_features(builder)
    return builder, archives


def cache_dir() -> Path:
    """Returns our folder within TFDS's own, for all copies of the repository."""
    return Path(tfds.core.constants.DATA_DIR, "core_mlp")


def prepare_dataset(
    builder: tfds.core.DatasetBuilder,
    archives_dir: Path,
    on_download: Callable[[list[str]], None],
) -> None:
    """Prepares a dataset in the builder's folder, unless it is there already.

    Archives stand in for the download: a file that is found in `archives_dir`, under
    its original name, is checked and used. What is extracted from them is removed:
    TFDS would reuse it for any file of the same name.

    Args:
      builder: Of the dataset.
      archives_dir: The dataset's own folder of archives; need not exist.
      on_download: Called with the URLs before anything is downloaded.

    Raises:
      InputError: If an archive is not the one that TFDS knows, if the dataset can be
        neither read nor downloaded, or has not the splits train and test.
    """
    missing = _check_archives(builder, archives_dir)
    if missing and not builder.data_path.exists():
        on_download(missing)
    # Left behind by a run that was killed, it may be of other archives.
    extract_dir = Path(builder.data_path).parent / "extracted"
    shutil.rmtree(extract_dir, ignore_errors=True)
    config = tfds.download.DownloadConfig(
        extract_dir=extract_dir, manual_dir=archives_dir, try_download_gcs=False
    )
    is_ours = type(builder).__module__ == __name__
    if is_ours:
        # TFDS would reuse what another state of our code has prepared.
        config.download_mode = tfds.GenerateMode.REUSE_CACHE_IF_EXISTS
    try:
        builder.download_and_prepare(
            # Downloads go by URL and checksum, so that they can be shared.
            download_dir=Path(tfds.core.constants.DATA_DIR, "downloads"),
            download_config=config,
        )
    # TFDS's many builders raise whatever their many sources make them raise.
    except Exception as error:
        import tensorflow as tf

        # A fault of ours keeps its traceback, but a full disk is none.
        if is_ours and not isinstance(error.__cause__, (OSError, tf.errors.OpError)):
            raise
        problem = _describe(error)
        if missing:
            names = ", ".join(Path(url).name for url in missing)
            problem += f"; without a network, put into {archives_dir}: {names}"
        raise InputError(
            f"dataset = {builder.name}: cannot be prepared: {problem}"
        ) from error
    finally:
        shutil.rmtree(extract_dir, ignore_errors=True)
    if not {"train", "test"} <= set(builder.info.splits):
        raise InputError(
            f"dataset = {builder.name}: needs the splits train and test; its splits "
            f"are {', '.join(builder.info.splits) or 'none'}"
        )


def describe_dataset(builder: tfds.core.DatasetBuilder) -> DatasetInfo:
    """Describes a prepared dataset.

    Raises:
      InputError: If a split is empty, or there are fewer than two classes.
    """
    info = builder.info
    try:
        return DatasetInfo(
            dataset=info.full_name.removesuffix(f"/{info.version}"),
            version=str(info.version),
            image_shape=info.features["image"].shape,
            class_names=info.features["label"].names,
            num_examples={
                split: info.splits[split].num_examples for split in ("train", "test")
            },
        )
    except ValidationError as error:
        raise InputError(f"dataset = {builder.name}: {first_problem(error)}") from error


def read_batches(
    builder: tfds.core.DatasetBuilder, split: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Reads a split of a prepared dataset, in TFDS's fixed order.

    Args:
      builder: Of the dataset.
      split: Name of the split.

    Yields:
      `[B, H, W, C]` uint8 images and `[B]` int64 labels.

    Raises:
      InputError: If an image has no label (TFDS has -1 for it), or a file is damaged.
    """
    import tensorflow as tf

    # One file after the other: the order does not depend on the number of shards
    # that are read at a time.
    read_config = tfds.ReadConfig(
        interleave_cycle_length=1,
        num_parallel_calls_for_decode=NUM_PARALLEL_DECODES,
        try_autocache=False,
    )
    # An iterator ends by waiting for the thread that tunes it, which by then sleeps for
    # seconds at a time.
    read_config.options.autotune.enabled = False
    dataset = builder.as_dataset(
        split=split, batch_size=READ_BATCH_SIZE, read_config=read_config
    )
    try:
        for batch in tfds.as_numpy(dataset):
            if batch["label"].min() < 0:
                raise InputError(
                    f"dataset = {builder.name}: there are images without a label in "
                    f"{split}"
                )
            yield batch["image"], batch["label"]
    except tf.errors.OpError as error:
        raise InputError(
            f"{builder.data_path}: damaged; remove it, and it is prepared anew: "
            f"{_describe(error)}"
        ) from error


def check_labels(archives_dir: Path, split: str, labels: np.ndarray) -> None:
    """Checks the labels of a split against the archive that states them.

    Args:
      archives_dir: The dataset's own folder of archives.
      split: `train` or `test`.
      labels: `[N]` int64, of the whole split, in any order.

    Raises:
      InputError: If the archive is there and has another number of images of a label.
    """
    path = archives_dir / LABEL_ARCHIVES[split]
    if not path.exists():
        return
    with gzip.open(path) as file:
        content = file.read()[LABEL_ARCHIVE_HEADER_BYTES:]
    stated = np.bincount(np.frombuffer(content, np.uint8))
    found = np.bincount(labels)
    if not np.array_equal(stated, found):
        raise InputError(
            f"{path}: has {stated.tolist()} images of each label; the dataset that was "
            f"prepared from it has {found.tolist()}"
        )


def find_twin(digest: str, dataset: str) -> str | None:
    """Returns another dataset that once had the same images, and notes this one.

    Args:
      digest: SHA-256 of the images of a split.
      dataset: Name of the dataset.
    """
    path = cache_dir() / "digests" / digest
    if path.exists():
        known = path.read_text(encoding="utf-8")
        return known if known != dataset else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dataset, encoding="utf-8")
    return None


def _check_features(builder: tfds.core.DatasetBuilder) -> None:
    """Raises InputError unless every example is an image of one shape and a label."""
    features = builder.info.features
    image, label = (dict(features.items()).get(key) for key in ("image", "label"))
    if (
        not isinstance(image, tfds.features.Image)
        or not isinstance(label, tfds.features.ClassLabel)
        or None in image.shape
        or image.np_dtype != np.uint8
    ):
        found = f"{', '.join(features)}, with image = {image} and label = {label}"
        found = textwrap.shorten(found, 300, placeholder=" ...")
        raise InputError(
            f"dataset = {builder.name}: needs the features image, uint8 of one fixed "
            f"shape, and label, a class; it has {found}"
        )


def _check_archives(builder: tfds.core.DatasetBuilder, manual_dir: Path) -> list[str]:
    """Checks the archives that are there; returns the URLs of those that are not."""
    missing = []
    for url, expected in (builder.url_infos or {}).items():
        path = manual_dir / (expected.filename or Path(url).name)
        if not path.exists():
            missing.append(url)
            continue
        found = tfds.download.checksums.compute_url_info(path)
        if found != expected:
            raise InputError(
                f"{path}: damaged or not the original: {int(found.size):,} bytes, "
                f"SHA-256 {found.checksum}; expected {int(expected.size):,} bytes, "
                f"{expected.checksum}"
            )
    return missing


def _describe(error: Exception) -> str:
    """Returns an error as one line: its type, and what its message begins with."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return textwrap.shorten(text, 300, placeholder=" ...")
