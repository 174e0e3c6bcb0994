"""Writes MODEL_CARD.md and its pictures from the results in Git."""

from pathlib import Path

from core_mlp.evaluation.metrics import CALIBRATION_BINS, proportion
from core_mlp.pipeline.files import write_text
from core_mlp.reporting import figures
from core_mlp.reporting.document import render
from core_mlp.reporting.runs import Run
from core_mlp.reporting.significance import summarize
from core_mlp.results.evaluate import CalibrationBin

CARD_FILE = Path("MODEL_CARD.md")
IMAGES = Path("docs/images")
NUM_MISTAKES = 10
MAX_CLASSES = 30


def write(run: Run) -> None:
    """Writes the model card of a run, and its pictures."""
    write_text(CARD_FILE, render_card(run))
    figures.draw_history(IMAGES / "history.png", run.history)
    figures.draw_confusion(IMAGES / "confusion.png", run.confusion, run.class_names)


def render_card(run: Run) -> str:
    """Returns the model card of a run."""
    mistakes = sorted(run.mistakes.values(), key=lambda m: -m.confidence)
    accuracies = [result.metrics["test_accuracy"] for result in run.results]
    return render(
        "model_card.md",
        run=run,
        seeds=summarize(accuracies) if len(accuracies) > 1 else None,
        calibration=summarize_calibration(run.calibration),
        most_confused=most_confused,
        max_classes=MAX_CLASSES,
        num_confident=sum(mistake.confidence > 0.99 for mistake in mistakes),
        mistakes=mistakes[:NUM_MISTAKES],
    )


def most_confused(run: Run, name: str) -> str:
    """Returns the two classes that a class is most often confused with."""
    wrong = {
        predicted: count
        for (actual, predicted), count in run.confusion.items()
        if actual == name != predicted and count
    }
    most = sorted(wrong.items(), key=lambda item: -item[1])[:2]
    return ", ".join(f"{predicted} ({count})" for predicted, count in most)


def summarize_calibration(calibration: list[CalibrationBin]) -> dict | None:
    """Compares confidence and accuracy outside the most confident bin."""
    bins = sorted(calibration)[:-1]
    number = sum(b.count for b in bins)
    if not number:
        return None
    confidence = sum(b.confidence * b.count for b in bins) / number
    accuracy = proportion(round(sum(b.accuracy * b.count for b in bins)), number)
    kind = "calibrated, as far as this shows"
    if not accuracy.low <= confidence <= accuracy.high:
        kind = "overconfident" if confidence > accuracy.value else "underconfident"
    return {
        "kind": kind,
        "edge": 1 - 1 / CALIBRATION_BINS,
        "number": number,
        "confidence": confidence,
        "accuracy": accuracy,
    }
