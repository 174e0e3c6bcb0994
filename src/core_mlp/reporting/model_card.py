"""MODEL_CARD.md and its pictures, from what is in Git."""

from pathlib import Path

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
    confident_first = sorted(run.mistakes.items(), key=lambda m: -m[1].confidence)
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
        accuracy=f"{metrics['test_accuracy']:.4f}",
        low=f"{metrics['test_accuracy_low']:.4f}",
        high=f"{metrics['test_accuracy_high']:.4f}",
        loss=f"{metrics['test_loss']:.4f}",
        calibration_error=f"{metrics['test_calibration_error']:.4f}",
        seeds=_describe_seeds(run),
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
                    name,
                    f"{run.count_of_class(name):,}",
                    f"{accuracy:.4f}",
                    f"{low:.4f} to {high:.4f}",
                    _describe_confusions(run, name),
                ]
                for name, (accuracy, low, high) in run.class_accuracies.items()
            ],
        ),
        num_confident=sum(mistake.confidence > 0.99 for _, mistake in confident_first),
        num_mistakes=len(run.mistakes),
        mistakes=_table(
            ["image", "label", "prediction", "confidence"],
            [
                [str(index), m.label, m.predicted, format_confidence(m.confidence)]
                for index, m in confident_first[:NUM_MISTAKES]
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
    if not run.has_own_seeds:
        return "Another seed would give another model."
    results = [seed_run.metrics["test_accuracy"] for seed_run in run.seeds.runs]
    summary = significance.summarize(results)
    return (
        f"Over {len(results)} seeds, accuracy is {summary.mean:.4f} ± "
        f"{summary.sd:.4f} (mean and standard deviation)."
    )
