"""Number of threads, on which the order of sums, and so the last bits, depend."""

import os

from core_mlp.pipeline.errors import InputError

# Set for experiments that share the cores, which have as many threads as a single one.
VARIABLE = "CORE_MLP_NUM_THREADS"


def available_cores() -> list[int]:
    """Returns the cores that this process may use, sorted."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def num_threads() -> int:
    """Returns how many threads TensorFlow uses for one operation.

    On some processors, Eigen sums up a matrix product in another order with one thread
    than with two. So there are at least two, even on one core.

    Raises:
      InputError: If the variable is not a positive number.
    """
    value = os.environ.get(VARIABLE) or str(max(2, len(available_cores())))
    if not value.isdecimal() or int(value) == 0:
        raise InputError(f"{VARIABLE}={value}: expected a number of 1 or more")
    return int(value)
