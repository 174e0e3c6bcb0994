"""The device that trains, and TensorFlow's settings that make it deterministic."""

import os

import tensorflow as tf

from core_mlp.training.threads import num_threads


def set_up_device() -> str:
    """Makes TensorFlow deterministic; returns the name of the training device."""
    # Without this flag, XLA:CPU copies the weights in every step. XLA reads it at its
    # first compilation.
    os.environ.setdefault(
        "XLA_FLAGS", "--xla_cpu_copy_insertion_use_region_analysis=true"
    )
    tf.config.threading.set_intra_op_parallelism_threads(num_threads())
    tf.config.experimental.enable_op_determinism()
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        return "CPU"
    details = tf.config.experimental.get_device_details(gpus[0])
    return f"GPU ({details.get('device_name', 'unnamed')})"
