"""The loop over epochs: which weights are trained, evaluated and kept."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import tensorflow as tf
from tqdm import tqdm

from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.params import TrainParams
from core_mlp.results.train import EpochResult
from core_mlp.training.input_pipeline import Chunk, EpochData, Examples
from core_mlp.training.step import Compiled, Objective


class Models(NamedTuple):
    """The same network in three roles, which may be one and the same.

    Attributes:
      trained: Is updated by the optimizer.
      evaluated: Holds the averages of the trained weights, if they are averaged.
      kept: Holds the evaluated weights of the best epoch, if there is patience.
    """

    trained: tf.Module
    evaluated: tf.Module
    kept: tf.Module

    @classmethod
    def build(cls, build_model: Callable[[], tf.Module], p: TrainParams) -> Self:
        """Builds as many models as the parameters need."""
        trained = build_model()
        evaluated = build_model() if p.ema_decay else trained
        kept = build_model() if p.patience else evaluated
        return cls(trained, evaluated, kept)


class Epoch(NamedTuple):
    """An epoch that has just ended.

    Attributes:
      result: Its losses and accuracies.
      images_per_second: Training speed, without evaluation; the first epoch includes
        compilation.
    """

    result: EpochResult
    images_per_second: float

    def __str__(self) -> str:
        """Returns the epoch as a line of a log, without its number."""
        return (
            f"train loss {self.result.train_loss:.4f}, "
            f"accuracy {self.result.train_accuracy:.4f}; "
            f"validation loss {self.result.validation_loss:.4f}, "
            f"accuracy {self.result.validation_accuracy:.4f}; "
            f"{self.images_per_second:,.0f} images/s"
        )


def train(
    models: Models,
    optimizer: tf.Module,
    objective: Objective,
    *,
    epoch_data: EpochData,
    validation: Examples,
    history: list[EpochResult],
    p: TrainParams,
    compiled: Compiled,
) -> Iterator[Epoch]:
    """Trains a model, and evaluates it after each epoch.

    Args:
      models: What is trained, evaluated and kept.
      optimizer: Updates `models.trained`.
      objective: What is minimized.
      epoch_data: Supplies the training examples.
      validation: The validation split.
      history: Results of the epochs so far; new ones are appended.
      p: Parameters of train: epochs, batch_size and patience.
      compiled: The compiled functions of an epoch.

    Yields:
      Each epoch as it ends.

    Raises:
      InputError: If a loss is not finite, or there is too little memory.
    """
    for number in range(len(history) + 1, p.epochs + 1):
        if is_stuck(history, p.patience):
            return
        try:
            epoch = run_epoch(
                number,
                models,
                optimizer,
                objective,
                chunks=epoch_data(number),
                validation=validation,
                batch_size=p.batch_size,
                compiled=compiled,
            )
        except tf.errors.ResourceExhaustedError as error:
            raise InputError(
                f"batch_size = {p.batch_size}, conv_filters = {list(p.conv_filters)}, "
                f"hidden_sizes = {list(p.hidden_sizes)}: an epoch does not fit into "
                "memory; try smaller ones"
            ) from error
        result = epoch.result
        if not math.isfinite(result.train_loss + result.validation_loss):
            raise InputError(
                f"training diverged: the loss of epoch {number} is not finite; try a "
                "smaller learning_rate"
            )
        history.append(result)
        if p.patience and kept_epoch(history, p.patience) is result:
            copy_weights(models.evaluated, models.kept)
        yield epoch


def run_epoch(
    number: int,
    models: Models,
    optimizer: tf.Module,
    objective: Objective,
    *,
    chunks: Iterable[Chunk],
    validation: Examples,
    batch_size: int,
    compiled: Compiled,
) -> Epoch:
    """Trains on every example once, then evaluates."""
    start = time.perf_counter()
    num_examples = 0
    loss = num_correct = 0.0
    for chunk in chunks:
        sums = compiled.train_epoch(
            models.trained, optimizer, objective, chunk, batch_size=batch_size
        )
        num_examples += len(chunk.order)
        # Kept as tensors, so that the next chunk is prepared while this one runs.
        loss += sums.loss
        num_correct += sums.num_correct
    # float() waits for the device: only then has the epoch ended.
    train_loss = float(loss) / num_examples
    train_accuracy = float(num_correct) / num_examples
    seconds = time.perf_counter() - start
    sums = compiled.evaluate(models.evaluated, validation)
    num_validated = len(validation.labels)
    result = EpochResult(
        epoch=number,
        train_loss=train_loss,
        validation_loss=float(sums.loss) / num_validated,
        train_accuracy=train_accuracy,
        validation_accuracy=float(sums.num_correct) / num_validated,
    )
    return Epoch(result, num_examples / seconds)


def is_stuck(history: Sequence[EpochResult], patience: int) -> bool:
    """Tells whether training stops because the best epoch is too long ago."""
    if not patience or not history:
        return False
    return len(history) - kept_epoch(history, patience).epoch >= patience


def kept_epoch(history: Sequence[EpochResult], patience: int) -> EpochResult:
    """Returns the epoch whose weights are kept: the last, or, with patience, the best.

    The best is the first epoch with the highest validation accuracy.
    """
    if not patience:
        return history[-1]
    return max(history, key=lambda result: result.validation_accuracy)


def copy_weights(source: tf.Module, target: tf.Module) -> None:
    """Copies the weights of a model into another one of the same network."""
    for value, variable in zip(source.variables, target.variables, strict=True):
        variable.assign(value)


def show_progress(
    epochs: Iterable[Epoch], *, num_trained: int, num_epochs: int
) -> Iterator[Epoch]:
    """Prints each epoch as it ends; adds a progress bar on a terminal."""
    width = len(str(num_epochs))
    with tqdm(total=num_epochs, initial=num_trained, unit="epoch", disable=None) as bar:
        for epoch in epochs:
            yield epoch  # It is printed once the caller has saved it.
            number = f"Epoch {epoch.result.epoch:>{width}}/{num_epochs}"
            tqdm.write(f"{number}: {epoch}", file=sys.stdout)
            sys.stdout.flush()
            bar.update()
