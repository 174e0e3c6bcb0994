"""Trains on two logical CPUs; prints how far single epochs differ from one CPU's."""

import json
from functools import partial

import stages  # noqa: F401  # isort: skip

import numpy as np
import tensorflow as tf

from core_mlp.distributed import replicas
from core_mlp.training import augmentation
from core_mlp.training.device import set_up_device
from core_mlp.training.input_pipeline import Chunk, Examples
from core_mlp.training.model import MLP
from core_mlp.training.optimizers import Adam
from core_mlp.training.step import Objective
from stages import train


def main():
    set_up_device()  # train does, too, but then it may only be the same again.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    one = tf.distribute.get_strategy()
    two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    # A second one would use the first one's keys for its collectives.
    tf.distribute.MirroredStrategy = lambda names: two
    train.main()

    results = {}
    for batch_size, dtype in ((37, tf.float32), (10, tf.bfloat16)):
        a, b = (train_epoch(strategy, batch_size, dtype) for strategy in (one, two))
        results[dtype.name] = float(np.max(abs(a - b) / (abs(a) + 1)))
    augment = partial(augmentation.augment, rotation=20.0, shift=0.5)
    first, second = (train_epoch(two, 10, tf.bfloat16, augment) for _ in range(2))
    results["augmented"] = [bool(np.all(first == second)), bool(first[0] != b[0])]
    print(json.dumps(results))


def train_epoch(strategy, batch_size, dtype, augment=None):
    """Returns sum of losses, correct predictions, evaluation, and all variables."""
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, [37, 4, 4, 1], np.uint8))
    examples = Examples(images, tf.constant(rng.integers(0, 3, 37)))
    is_one = strategy.num_replicas_in_sync == 1
    compiled = replicas.compile_functions(None if is_one else strategy)
    with strategy.scope():
        model = MLP([4, 4, 1], [32, 3], seed=1, compute_dtype=dtype)
        adam = Adam(model.trainable_variables, epsilon=1e-2)
        chunk = Chunk(examples, tf.range(37), tf.constant([1, 2]))
        sums = compiled.train_epoch(
            model, adam, Objective(augment=augment), chunk, batch_size=batch_size
        )
        numbers = [*sums, *compiled.evaluate(model, examples)]
        arrays = [np.ravel(value) for value in (*numbers, *model.variables)]
        return np.concatenate(arrays)


if __name__ == "__main__":
    main()
