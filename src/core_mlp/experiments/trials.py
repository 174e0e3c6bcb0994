"""Follows the training runs of a search while they run."""

import csv
import hashlib
import json
from pathlib import Path

import optuna

STATES = Path(".dvc/tmp/search")
HISTORY = Path("plots/history.csv")
METRICS = Path("metrics/train.json")


class TrainingRun:
    """A run of train whose metrics are read, and nothing else.

    Attributes:
      state_folder: Where train keeps its state.
      metrics: What train wrote in the end; None before, or if the run was stopped.
    """

    def __init__(self, settings: tuple[str, ...]) -> None:
        digest = hashlib.sha256("\n".join(settings).encode()).hexdigest()
        self.state_folder = STATES / digest[:16]
        self.metrics: dict[str, float] | None = None

    def is_hopeless(self, project: Path) -> bool:
        """Returns whether to stop the run."""
        return False

    def end(self, project: Path) -> None:
        """Reads the metrics."""
        self.metrics = json.loads((project / METRICS).read_text("utf-8"))


class Trial(TrainingRun):
    """A trial of a study of Optuna: stopped if others were better after as many epochs.

    Attributes:
      trial: The trial.
      settings: What it changes in params.yaml, each as KEY=VALUE.
      num_epochs: How many epochs it has trained.
    """

    def __init__(
        self, trial: optuna.Trial, settings: tuple[str, ...], *, last_rung: int
    ) -> None:
        """Prepares to follow a trial.

        Args:
          trial: The trial.
          settings: What it changes.
          last_rung: It is not stopped after more epochs than this.
        """
        super().__init__(settings)
        self.trial = trial
        self.settings = settings
        self.num_epochs = 0
        self._last_rung = last_rung

    def is_hopeless(self, project: Path) -> bool:
        """Reports the epochs that have ended since the last call."""
        text = (project / HISTORY).read_text("utf-8")
        for epoch in list(csv.DictReader(text.splitlines()))[self.num_epochs :]:
            self.num_epochs += 1
            self.trial.report(float(epoch["validation_accuracy"]), self.num_epochs)
            if self.num_epochs <= self._last_rung and self.trial.should_prune():
                return True
        return False

    def end(self, project: Path) -> None:
        """Reports the last epochs, and reads the metrics."""
        self.is_hopeless(project)
        super().end(project)
