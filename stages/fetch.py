"""Read a dataset and save it as NumPy arrays.

Reads data/source/ and the parameters channels, dataset, image_size. Writes
data/provenance/fetch.json and data/raw/: images.npy, labels.npy and info.json of the
train split and, if there is one, the test split.
"""

from contextlib import nullcontext
from pathlib import Path

from core_mlp.pipeline import params
from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.stage import run_stage
from core_mlp.sources import arrays, folders, tfds

SOURCE = Path("data/source")
RAW = Path("data/raw")


def main() -> None:
    p = params.load_params(params.FetchParams)
    print(f"Preparing {p.dataset}", flush=True)
    wanted = p.image_size, p.channels
    if images := folders.find_images(SOURCE / p.dataset):
        lock = nullcontext()
        splits = folders.read_splits(images, p.dataset, *wanted)
    else:
        builder, archives, shape = tfds.find_dataset(p.dataset, SOURCE, *wanted)
        lock = tfds.prepared_dataset(builder, archives)
        splits = tfds.read_splits(builder, shape)
    with lock, atomic_output(RAW) as partial:
        partial.mkdir()
        for split, info, batches in splits:
            arrays.write_arrays(partial / split, info, batches)
            size = f"{info.num_examples:,} images of {list(info.image_shape)}"
            print(f"{split}: {size}", flush=True)


if __name__ == "__main__":
    run_stage(main)
