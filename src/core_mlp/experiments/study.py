"""The trials of a search: Optuna draws their parameters, and stops hopeless ones."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.trial import FrozenTrial, TrialState

from core_mlp.experiments.copies import Snapshot
from core_mlp.experiments.runner import Outcome, Task, hash_inputs, say
from core_mlp.experiments.shared_study import Workers, check_origin, open_study
from core_mlp.experiments.space import Space
from core_mlp.experiments.trials import Trial
from core_mlp.pipeline.params import Params, load_params
from core_mlp.reporting.search import TrialResult

# Trials are compared after a ninth and after a third of the epochs; the best third of
# them goes on. Later than that, stopping one would save little.
REDUCTION = 3
# How often to draw until a setting is new. TPE may draw the same few again and again;
# the rest is drawn at random.
TPE_DRAWS = 3
RANDOM_DRAWS = 100
# With fewer trials, the importance of parameters is chance.
MIN_FINISHED = 5
OUTCOMES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


class Study:
    """The trials of a search.

    Attributes:
      path: Their file.
      space: What they vary.
      params: params.yaml, as it is.
      snapshot: The files that they start with.
      check_lock: The lock of the process that checks the best trial.
    """

    def __init__(self, space: Space) -> None:
        """Opens the study of a space, or starts it.

        Args:
          space: What to vary. The trials are in a file beside it, NAME.journal.

        Raises:
          InputError: If the file is corrupt, or its trials are of another space, or of
            other code, parameters or data.
        """
        self.path = space.path.with_suffix(".journal")
        self.space = space
        self.params = load_params(Params)
        self.snapshot = Snapshot.take(None)
        self._workers = Workers(self.path)
        self._lock = FileLock(f"{self.path}.study.lock")
        self.check_lock = Path(f"{self.path}.check.lock")
        first_rung = max(1, space.max_epochs(self.params.epochs) // REDUCTION**2)
        self._last_rung = REDUCTION * first_rung
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._lock:
            pruner = optuna.pruners.SuccessiveHalvingPruner(first_rung, REDUCTION)
            self._study = open_study(self.path, pruner)
            origin = {
                "space": space.describe(),
                "state of code, parameters and data": hash_inputs(self.snapshot.tree),
            }
            check_origin(self._study, self.path, origin, self.snapshot.tree)
        # After an interruption, the same seed would draw the same values again.
        seed = self.params.seed + len(self._study.get_trials(deepcopy=False))
        self._tpe = optuna.samplers.TPESampler(seed=seed)
        self._random = optuna.samplers.RandomSampler(seed=seed)

    def working(self) -> AbstractContextManager[None]:
        """Shows other processes that this one runs trials, in a `with` block."""
        with self._lock:
            self._requeue_abandoned()
        return self._workers.present()

    def trials(self) -> list[FrozenTrial]:
        """Returns the trials that count, including those that are running."""
        return [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            # A trial that failed without an error was repeated, or is run again.
            if "settings" in trial.user_attrs
            and (trial.state != TrialState.FAIL or "error" in trial.user_attrs)
        ]

    def finished(self) -> list[FrozenTrial]:
        """Returns the trials that have trained all epochs, the best one first."""
        trials = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        return sorted(trials, key=lambda t: (-t.value, t.user_attrs["loss"], t.number))

    def best_settings(self) -> tuple[str, ...]:
        """Returns the settings of the best trial, each as KEY=VALUE."""
        return tuple(self.finished()[0].user_attrs["settings"])

    def why_none_finished(self) -> str:
        """Returns what to say if no trial has finished."""
        errors = [
            t.user_attrs["error"] for t in self.trials() if "error" in t.user_attrs
        ]
        if not errors:
            return "no trial has finished; give it more --minutes"
        return f"{len(errors)} trials failed, none has finished: {errors[0]}"

    def is_running(self) -> bool:
        """Returns whether a trial is running, in any process."""
        return any(trial.state == TrialState.RUNNING for trial in self.trials())

    def tasks(self, number: int) -> Iterator[Task]:
        """Yields trials to run, until there are `number`."""
        while True:
            with self._lock:
                self._requeue_abandoned()
                trial = self._ask() if len(self.trials()) < number else None
            if trial is None:
                return
            label = f"trial {trial.trial.number} ({' '.join(trial.settings)})"
            yield Task(label, self.snapshot, trial.settings, trial)

    def _ask(self) -> Trial | None:
        """Draws a setting that no trial has; returns None if it finds none."""
        known = {tuple(trial.user_attrs["settings"]) for trial in self.trials()}
        for sampler in TPE_DRAWS * [self._tpe] + RANDOM_DRAWS * [self._random]:
            self._study.sampler = sampler
            trial = self._study.ask()
            trial.set_user_attr("worker", self._workers.own)
            settings = self.space.draw(trial)
            if settings not in known:
                trial.set_user_attr("settings", settings)
                return Trial(trial, settings, last_rung=self._last_rung)
            self._study.tell(trial, state=TrialState.FAIL)
        say(f"no new setting in {TPE_DRAWS + RANDOM_DRAWS} draws")
        return None

    def _requeue_abandoned(self) -> None:
        """Lets the trials of processes that were killed run again."""
        running = [TrialState.RUNNING]
        for trial in self._study.get_trials(deepcopy=False, states=running):
            if self._workers.has_ended(trial.user_attrs.get("worker", "")):
                self._study.tell(trial.number, state=TrialState.FAIL)
                self._study.enqueue_trial(trial.params)

    def finish(self, outcome: Outcome) -> None:
        """Stores the outcome of a trial, and prints it."""
        observer = outcome.task.observer
        trial = observer.trial
        if outcome.error:
            trial.set_user_attr("error", outcome.error)
            self._study.tell(trial, state=TrialState.FAIL)
            say(f"failed: {outcome.error}")
            return
        if observer.metrics is None:
            self._study.tell(trial, state=TrialState.PRUNED)
            found = f"stopped after epoch {observer.num_epochs}"
        else:
            trial.set_user_attr("loss", observer.metrics["validation_loss"])
            self._study.tell(trial, observer.metrics["validation_accuracy"])
            found = f"finished, best so far {self.finished()[0].value:.4f}"
        value = self._study.get_trials(deepcopy=False)[trial.number].value
        say(f"{outcome.task.label}: validation accuracy {value:.4f}, {found}")

    @property
    def new_seeds(self) -> dict[str, float]:
        """Validation accuracies with new seeds, by the settings as one line."""
        return self._study.user_attrs.get("new seeds", {})

    def add_new_seed(self, settings: str, accuracy: float) -> None:
        """Stores a validation accuracy with a new seed."""
        self._study.set_user_attr("new seeds", self.new_seeds | {settings: accuracy})

    def results(self) -> list[TrialResult]:
        """Returns the results of the trials that have ended, the best one first."""
        trials = {t.number: t for t in chain(self.finished(), self.trials())}
        return [
            TrialResult(
                trial=trial.number,
                outcome=OUTCOMES[trial.state],
                epochs=trial.last_step or 0,
                accuracy=trial.value,
                loss=trial.user_attrs.get("loss"),
                settings=dict(s.split("=", 1) for s in trial.user_attrs["settings"]),
            )
            for trial in trials.values()
            if trial.state in OUTCOMES
        ]

    def importances(self) -> dict[str, float]:
        """Returns by how much each parameter changes the accuracy, in all 1.

        Nothing if few trials have finished. The measure is Optuna's own.
        """
        if len(self.finished()) < MIN_FINISHED:
            return {}
        return optuna.importance.get_param_importances(self._study)
