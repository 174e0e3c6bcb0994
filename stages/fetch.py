"""Download a dataset and save it as NumPy arrays.

Reads data/source/ and the parameter dataset. Writes data/raw/: images.npy, labels.npy
and info.json of the train and the test split.
"""

from pathlib import Path

import numpy as np

from core_mlp.pipeline import params
from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.stage import run_stage
from core_mlp.sources import arrays, tfds

SOURCE = Path("data/source")
RAW = Path("data/raw")


def main() -> None:
    dataset = params.load_params(params.FetchParams).dataset
    print(f"Preparing {dataset}", flush=True)
    builder, archives = tfds.find_dataset(dataset, SOURCE)
    with tfds.prepared_dataset(builder, archives), atomic_output(RAW) as partial:
        partial.mkdir()
        for split in ("train", "test"):
            info = arrays.write_arrays(
                partial / split,
                tfds.describe_split(builder, split),
                tfds.read_batches(builder, split),
            )
            tfds.check_labels(archives, split, np.load(partial / split / "labels.npy"))
            print(f"{split}: {info.num_examples:,} images of {list(info.image_shape)}")
            if twin := tfds.find_twin(info):
                print(
                    f"warning: the {split} images are those of {twin}, byte for byte: "
                    f"are the files in {archives} really {info.dataset}?"
                )


if __name__ == "__main__":
    run_stage(main)
