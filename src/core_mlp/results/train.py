"""Metrics and rows of CSVs that train writes."""

from typing import NamedTuple


class EpochResult(NamedTuple):
    """A row of plots/history.csv: losses in nats, accuracies in [0, 1].

    Epochs are counted from 1. Train metrics are means over the epoch's examples, each
    computed with the weights of its own step; validation metrics use the weights at the
    end of the epoch.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    train_accuracy: float
    validation_accuracy: float

    def summary(self) -> dict[str, float]:
        """Returns the content of metrics/train.json, if this epoch is kept."""
        return {
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            "validation_loss": self.validation_loss,
            "validation_accuracy": self.validation_accuracy,
            # Not named epochs, like the parameter: `dvc exp show` would prefix both.
            "train_epochs": self.epoch,
        }


class ActivationPoint(NamedTuple):
    """A row of plots/activations.csv; the softmax is taken over all points."""

    x: float
    relu: float
    softmax: float
