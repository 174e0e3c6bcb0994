"""Which images are held out of the training split, for validation and test."""

import numpy as np

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.params import PARAMS_FILE


def hold_out(keys: np.ndarray, sizes: dict[str, int]) -> dict[str, np.ndarray]:
    """Divides examples into splits that have no key in common.

    Args:
      keys: `[N]`, equal for equal images.
      sizes: Number of examples for each split in turn, taken from the first that are
        left; a split also takes all examples that equal one of these.

    Returns:
      Sorted indices of the examples of each split; the rest is `train`.

    Raises:
      InputError: If no example is left for `train`.
    """
    splits = {}
    rest = np.arange(len(keys))
    for split, size in sizes.items():
        is_held_out = np.isin(keys[rest], keys[rest[:size]])
        splits[split] = rest[is_held_out]
        rest = rest[~is_held_out]
    if not len(rest):
        names = " + ".join(f"{split}_size" for split in sizes)
        raise InputError(
            f"{PARAMS_FILE}: {names} = {sum(sizes.values())}: none of {len(keys):,} "
            "images left for training"
        )
    return {"train": rest, **splits}
