"""MODEL_CARD.md and its pictures, from what is in Git."""

from pathlib import Path

from core_mlp.evaluation.metrics import CALIBRATION_BINS, proportion
from core_mlp.pipeline.files import write_text
from core_mlp.reporting import figures, significance
from core_mlp.reporting.document import (
    Table,
    count,
    escape,
    format_confidence,
    to_markdown,
)
from core_mlp.reporting.runs import Run

PATH = Path("MODEL_CARD.md")
IMAGES = Path("docs/images")
TEMPLATE = Path(__file__).with_suffix(".md")
NUM_MISTAKES = 10


def write(run: Run) -> None:
    """Writes the model card of a run, and its pictures."""
    write_text(PATH, render(run))
    figures.draw_history(IMAGES / "history.png", run.history)
    figures.draw_confusion(IMAGES / "confusion.png", run.confusion, run.class_names)


def render(run: Run) -> str:
    """Returns the model card of a run."""
    metrics = run.metrics
    leaked = f"**{run.num_leaked:,} of which are also in the train split**"
    confident_first = sorted(run.mistakes.values(), key=lambda m: -m.confidence)
    return TEMPLATE.read_text(encoding="utf-8").format(
        layer_sizes="-".join(
            map(str, [*run.params["hidden_sizes"], len(run.class_names)])
        ),
        dataset=escape(run.params["dataset"]),
        num_classes=len(run.class_names),
        class_names=", ".join(map(escape, run.class_names)),
        epochs=count(int(metrics["train_epochs"]), "epoch"),
        validation_size=f"{run.params['validation_size']:,}",
        params=_table(["parameter", "value"], run.params.items()),
        num_test=f"{run.count:,}",
        test_split=str(run.test_split)[:12],
        leaked=leaked if run.num_leaked else "none of which were used in\ntraining",
        accuracy=f"{metrics['test_accuracy']:.4f}",
        low=f"{metrics['test_accuracy_low']:.4f}",
        high=f"{metrics['test_accuracy_high']:.4f}",
        loss=f"{metrics['test_loss']:.4f}",
        calibration_error=f"{metrics['test_calibration_error']:.4f}",
        seeds=_describe_seeds(run),
        calibration=_describe_calibration(run),
        classes=_table(
            [
                "class",
                "images",
                "accuracy",
                "95 % interval",
                "most often confused with",
            ],
            [
                [
                    row.label,
                    f"{row.count:,}",
                    f"{row.accuracy:.4f}",
                    f"{row.low:.4f} to {row.high:.4f}",
                    _describe_confusions(run, row.label),
                ]
                for row in run.classes
            ],
        ),
        num_confident=sum(mistake.confidence > 0.99 for mistake in confident_first),
        num_mistakes=len(run.mistakes),
        mistakes=_table(
            ["image", "label", "prediction", "confidence"],
            [
                [str(m.index), m.label, m.predicted, format_confidence(m.confidence)]
                for m in confident_first[:NUM_MISTAKES]
            ],
        ),
    )


def _table(header: list[str], rows) -> str:
    return to_markdown([Table(header, list(rows))]).strip()


def _describe_confusions(run: Run, name: str) -> str:
    """Returns the two classes that a class is most often confused with."""
    wrong = {
        predicted: count
        for (actual, predicted), count in run.confusion.items()
        if actual == name != predicted and count
    }
    most = sorted(wrong.items(), key=lambda item: -item[1])[:2]
    return ", ".join(f"{predicted} ({count})" for predicted, count in most)


def _describe_seeds(run: Run) -> str:
    accuracies = [result.metrics["test_accuracy"] for result in run.results]
    if len(accuracies) == 1:
        return "Another seed would give another model."
    mean, sd, low, high = significance.summarize(accuracies)
    return (
        f"Over {len(accuracies)} seeds, accuracy is {mean:.4f} ± {sd:.4f} (mean and "
        f"standard deviation; 95 % interval of the mean {low:.4f} to {high:.4f})."
    )


def _describe_calibration(run: Run) -> str:
    """Compares confidence and accuracy of the images outside the most confident bin."""
    bins = sorted(run.calibration)[:-1]
    number = sum(b.count for b in bins)
    if not number:
        return ""
    confidence = sum(b.confidence * b.count for b in bins) / number
    accuracy = sum(b.accuracy * b.count for b in bins) / number
    _, low, high = proportion(round(accuracy * number), number)
    kind = "calibrated, as far as this shows"
    if not low <= confidence <= high:
        kind = "overconfident" if confidence > accuracy else "underconfident"
    edge = 1 - 1 / CALIBRATION_BINS
    return (
        f"Below a confidence of {edge:.2f} the model is {kind}: on "
        f"{count(number, 'image')}, mean confidence is {confidence:.3f} and accuracy "
        f"{accuracy:.3f} (95 % interval {low:.3f} to {high:.3f})."
    )
