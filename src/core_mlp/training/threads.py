"""How many threads compute: the order of sums, and so the last bits, depend on it."""

import os

# Set for experiments that share the cores, which have as many threads as a single one.
VARIABLE = "CORE_MLP_NUM_THREADS"


def num_cores() -> int:
    """Returns how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def num_threads() -> int:
    """Returns how many threads TensorFlow uses for one operation.

    On some processors, Eigen sums up a matrix product in another order with one thread
    than with two, and again with four. So there are at least two, even on one core.
    """
    return int(os.environ.get(VARIABLE) or max(2, num_cores()))
