"""The functions of an epoch on several devices or machines, by `tf.distribute`.

Every replica has all variables and takes its share of each batch; the gradients are
summed over replicas, and each applies the same update.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf

from core_mlp.training import step
from core_mlp.training.input_pipeline import Chunk, Examples
from core_mlp.training.step import Batch, Compiled, Objective, Share, Sums

SUM = tf.distribute.ReduceOp.SUM


def compile_functions(strategy: tf.distribute.Strategy | None) -> Compiled:
    """Compiles the functions of an epoch for the devices that train.

    Args:
      strategy: From `connection.connect`; None for one device.
    """
    if strategy is None:
        return step.compile_functions()
    print(f"{strategy.num_replicas_in_sync} devices train together", flush=True)
    replicas = Replicas(strategy)
    return Compiled(
        train_epoch=tf.function(replicas.train_epoch),
        evaluate=tf.function(replicas.evaluate),
    )


class Replicas:
    """Runs the steps of an epoch on all replicas of a strategy.

    XLA has no collectives on a CPU, so the code before and after them is compiled, not
    the epoch as a whole.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        """Prepares what each replica computes between the collectives."""
        self._strategy = strategy
        self._compute_gradients = tf.function(self._gradients_of, jit_compile=True)
        self._apply_gradients = tf.function(_apply_gradients, jit_compile=True)
        self._evaluate = tf.function(self._evaluate_part, jit_compile=True)

    def train_epoch(
        self,
        model: tf.Module,
        optimizer: tf.Module,
        objective: Objective,
        chunk: Chunk,
        *,
        batch_size: int,
    ) -> Sums:
        """Trains on every example of a chunk once; see `step.train_epoch`."""
        # Copies them to each device once instead of in every step.
        examples = self._strategy.run(
            lambda: Examples(
                tf.identity(chunk.examples.images), tf.identity(chunk.examples.labels)
            )
        )
        return step.train_epoch(
            model,
            optimizer,
            objective,
            chunk._replace(examples=examples),
            batch_size=batch_size,
            take_step=self._take_step,
        )

    def evaluate(self, model: tf.Module, examples: Examples) -> Sums:
        """Computes the sums over a split; see `step.evaluate`."""

        def evaluate_part() -> Sums:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            return _sum_over_replicas(self._evaluate(replica, model, examples))

        return self._run(evaluate_part)

    def _take_step(
        self,
        model: tf.Module,
        optimizer: tf.Module,
        objective: Objective,
        examples: Examples,
        batch: Batch,
    ) -> Sums:
        """Trains on one batch; each replica takes its own part."""

        def train_on_part(examples: Examples) -> Sums:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            part = self._compute_gradients(replica, model, objective, examples, batch)
            gradients, sums = _sum_over_replicas(part)
            self._apply_gradients(model, optimizer, gradients)
            return sums

        return self._run(train_on_part, examples)

    def _run(self, function: Callable[..., Sums], *args: Any) -> Sums:
        """Runs a function on all replicas, which return the same sums."""
        sums = self._strategy.run(function, args)
        return Sums(*(self._strategy.experimental_local_results(v)[0] for v in sums))

    def _gradients_of(
        self,
        replica: tf.Tensor,
        model: tf.Module,
        objective: Objective,
        examples: Examples,
        batch: Batch,
    ) -> tuple[list[tf.Tensor], Sums]:
        """Computes one replica's contribution to the gradients of a batch."""
        if objective.augment:
            batch = batch._replace(seed=tf.random.fold_in(batch.seed, replica))
        return step.compute_gradients(
            model, objective, examples, batch, share=self._share(replica)
        )

    def _evaluate_part(
        self, replica: tf.Tensor, model: tf.Module, examples: Examples
    ) -> Sums:
        """Computes one replica's contribution to the sums over a split."""
        return step.evaluate(model, examples, share=self._share(replica))

    def _share(self, replica: tf.Tensor) -> Share:
        """Returns a function that returns a replica's part of a tensor's last axis."""
        return partial(
            _part, replica=replica, num_replicas=self._strategy.num_replicas_in_sync
        )


def _part(values: tf.Tensor, *, replica: tf.Tensor, num_replicas: int) -> tf.Tensor:
    """Returns a replica's part of the last axis, padded with zeros."""
    *sizes, size = values.shape
    no_padding = [[0, 0]] * len(sizes)
    padding = [*no_padding, [0, -size % num_replicas]]
    values = tf.reshape(tf.pad(values, padding), [*sizes, -1, num_replicas])
    return values[..., replica]


def _apply_gradients(
    model: tf.Module, optimizer: tf.Module, gradients: list[tf.Tensor]
) -> None:
    optimizer.apply_gradients(gradients, model.trainable_variables)


def _sum_over_replicas(values: Any) -> Any:
    """Sums each tensor in a structure over all replicas."""
    return tf.distribute.get_replica_context().all_reduce(SUM, values)
