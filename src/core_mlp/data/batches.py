"""How many images are classified at once."""

import math
from collections.abc import Sequence


def evaluation_batch_size(image_shape: Sequence[int]) -> int:
    """Returns how many images to classify at once: fewer if they are large.

    Predictions depend on it by rounding only.

    >>> evaluation_batch_size([28, 28, 1]), evaluation_batch_size([224, 224, 3])
    (1000, 27)
    """
    return min(1000, max(1, 2**22 // math.prod(image_shape)))
