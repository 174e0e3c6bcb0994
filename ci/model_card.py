"""MODEL_CARD.md, from what is in Git: the same bytes for the same result."""

from pathlib import Path

from ci.markdown import count, escape, format_confidence, table
from ci.runs import Run
from core_mlp import comparing

PATH = Path("MODEL_CARD.md")
NUM_MISTAKES = 10


def render(run: Run) -> str:
    """Returns the model card of a run that says on what it was tested."""
    metrics, split = run.metrics, run.test_split
    sizes = [*run.params["hidden_sizes"], len(run.class_names)]
    classes = [
        [
            name,
            f"{run.count_of_class(name):,}",
            f"{accuracy:.4f}",
            f"{low:.4f} to {high:.4f}",
            _describe_confusions(run, name),
        ]
        for name, (accuracy, low, high) in run.class_accuracies.items()
    ]
    surest = sorted(run.mistakes.items(), key=lambda item: -item[1].confidence)
    mistakes = [
        [str(index), m.label, m.predicted, format_confidence(m.confidence)]
        for index, m in surest[:NUM_MISTAKES]
    ]
    above = sum(mistake.confidence > 0.99 for _, mistake in surest)
    return f"""# Model card

Written by `make report` from params.yaml, metrics/ and plots/.

## What it is

A multilayer perceptron (hidden layers and classes: {
        "-".join(map(str, sizes))
    }; ReLU) that
sorts images of {escape(split.dataset)} into {len(run.class_names)} classes: {
        ", ".join(map(escape, run.class_names))
    }. The
SavedModel `models/saved_model` takes uint8 images of {
        "x".join(map(str, split.image_shape))
    } (height, width,
channels) and returns a class and the probability of each class.

## What it was trained on, and how

The train split of {escape(split.dataset)} {split.version}, but for {
        run.params["validation_size"]:,} images kept for
validation, for {
        count(int(metrics["train_epochs"]), "epoch")
    }. No image was augmented or left out.

{table(["parameter", "value"], [[k, str(v)] for k, v in run.params.items()])}

## Results

On the {run.count:,} images of the test split (SHA-256 {
        split.sha256[:16]
    }...), which had no part in the training:

{
        table(
            ["metric", "value", "95 % interval"],
            [
                [
                    "accuracy",
                    f"{metrics['test_accuracy']:.4f}",
                    f"{metrics['test_accuracy_low']:.4f} to "
                    f"{metrics['test_accuracy_high']:.4f} (Wilson)",
                ],
                ["cross-entropy loss (nats)", f"{metrics['test_loss']:.4f}", ""],
                [
                    "expected calibration error",
                    f"{metrics['test_calibration_error']:.4f}",
                    "",
                ],
            ],
        )
    }

The interval is for this model. {_describe_seeds(run)}

## Where it is weak

The classes, worst first:

{table(["class", "images", "accuracy", "95 % interval", "mostly taken for"], classes)}

{above} of its {
        len(run.mistakes)
    } mistakes are made with a confidence above 0.99. The surest:

{table(["image", "label", "taken for", "confidence"], mistakes)}

## Limits of use

- It knows no answer but these classes: an image of anything else gets one of them,
  often with a high probability.
- It was tested on images prepared like those of the dataset (size, centring, contrast)
  and by the same sources. Shifted, rotated, inverted or noisy images were not tested.
- Its probabilities are as good as the calibration error says, on such images only.
- It demonstrates a pipeline; it was not examined for any use that affects people.
"""


def _describe_confusions(run: Run, name: str) -> str:
    """Returns the two classes that the images of a class are mostly taken for."""
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
    summary = comparing.summarise(results)
    return (
        f"Over {len(results)} seeds the accuracy is {summary.mean:.4f} ± "
        f"{summary.sd:.4f} (mean and standard deviation)."
    )
