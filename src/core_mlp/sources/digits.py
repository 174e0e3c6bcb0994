"""`sklearn_digits`, a dataset of our own; a template for others."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds


class SklearnDigits(tfds.core.GeneratorBasedBuilder):
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn includes.

    The last 360 are the test split; most of their writers did not write the rest.
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
        # Imported here because it takes a second and no other dataset needs it.
        from sklearn.datasets import load_digits

        digits = load_digits()
        # scikit-learn has 17 gray levels, 0 to 16.
        images = np.round(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
        examples = list(zip(images, digits.target, strict=True))
        return {
            "train": self._generate_examples(examples[: self.NUM_TRAIN]),
            "test": self._generate_examples(examples[self.NUM_TRAIN :]),
        }

    def _generate_examples(self, examples: list[tuple]) -> Iterator[tuple[int, dict]]:
        for index, (image, label) in enumerate(examples):
            yield index, {"image": image, "label": int(label)}
