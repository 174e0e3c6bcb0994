"""Read a dataset and save it as NumPy arrays.

Reads data/source/ and its parameters. Writes data/provenance/fetch.json and data/raw/:
images.npy, labels.npy and info.json of the train split and, if there is one, the test
split; for a folder of images, also files.npy.
"""

from collections.abc import Iterator
from pathlib import Path

from core_mlp.data import arrays
from core_mlp.pipeline import params
from core_mlp.pipeline.files import atomic_output
from core_mlp.pipeline.stage import run_stage
from core_mlp.sources import folders, listing, tfds

SOURCE = Path("data/source")
RAW = Path("data/raw")


def main() -> None:
    p = params.load_params(params.FetchParams)
    print(f"Preparing {p.dataset}", flush=True)
    with atomic_output(RAW) as partial:
        partial.mkdir()
        scratch_dir = partial.with_name("prepared")  # It is deleted with the rest.
        for name, info, write_images, files in read_dataset(p, scratch_dir):
            arrays.write_arrays(partial / name, info, write_images, files)
            size = f"{info.num_examples:,} images of {list(info.image_shape)}"
            print(f"{name}: {size}", flush=True)


def read_dataset(p: params.FetchParams, scratch_dir: Path) -> Iterator[arrays.Split]:
    """Returns each split of a folder or TFDS dataset."""
    folder = listing.list_folder(SOURCE, p.dataset)
    images = folders.find_images(folder)
    if images:
        return folders.read_splits(
            images, folder.root, p.dataset, p.image_size, p.channels
        )
    builder, archives, shape = tfds.find_dataset(
        p.dataset, SOURCE, p.image_size, p.channels
    )
    prepared = tfds.prepare_dataset(builder, archives, scratch_dir)
    return tfds.read_splits(prepared, shape)


if __name__ == "__main__":
    run_stage(main)
