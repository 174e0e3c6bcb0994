"""Evaluate the SavedModel, and the LiteRT model against it, on the test split.

Reads models/saved_model/, models/litert/ and data/tfrecords/test/. Writes
metrics/evaluate.json, plots/confusion.csv, plots/per_class.csv, plots/calibration.csv,
plots/mistakes.csv, plots/mistakes.png, plots/mistakes_sprite.png and
data/provenance/evaluate.json.
"""

from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from core_mlp.data import sprites, tfrecords
from core_mlp.evaluation import metrics
from core_mlp.evaluation.mistakes import draw_mistakes
from core_mlp.pipeline.files import write_csv, write_json
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.pipeline.stage import run_stage
from core_mlp.pipeline.text import visible
from core_mlp.results.evaluate import (
    CalibrationBin,
    ClassAccuracy,
    Confusion,
    Mistake,
)
from core_mlp.serving import answers, litert, saved_model
from core_mlp.training.device import set_up_device

TEST = Path("data/tfrecords/test")
PLOTS = Path("plots")


def main() -> None:
    set_up_device()
    info = SplitInfo.read_split(TEST)
    names = info.class_names
    images, labels = tfrecords.read_split(TEST, info)
    files = tfrecords.read_files(TEST, info)
    classify = saved_model.load_classifier(Path("models/saved_model"))
    predicted, probabilities = answers.predict(classify, images)
    classify = litert.load_classifier(Path("models/litert"))
    litert_predicted, _ = answers.predict(classify, images)

    summary = metrics.summarize(labels, predicted, probabilities)
    summary["litert_accuracy"] = np.mean(litert_predicted == labels)
    summary["litert_differences"] = int(np.sum(litert_predicted != predicted))
    for name, value in summary.items():
        print(f"{name}: {value:.4g}")
    write_json(Path("metrics/evaluate.json"), summary)

    counts = confusion_matrix(labels, predicted, labels=range(len(names)))
    pairs = metrics.confused_pairs(counts, names)
    write_csv(PLOTS / "confusion.csv", pairs, Confusion)
    classes = metrics.class_accuracies(counts, names)
    write_csv(PLOTS / "per_class.csv", classes, ClassAccuracy)
    confidences = probabilities.max(axis=1)
    is_correct = predicted == labels
    bins = metrics.calibration_bins(confidences, is_correct)
    write_csv(PLOTS / "calibration.csv", bins, CalibrationBin)
    mistakes = [
        Mistake(
            index=index,
            label=names[labels[index]],
            predicted=names[predicted[index]],
            confidence=confidences[index],
            file=visible(files[index]) if files else None,
        )
        for index in np.flatnonzero(~is_correct)
    ]
    write_csv(PLOTS / "mistakes.csv", mistakes, Mistake)
    draw_mistakes(PLOTS / "mistakes.png", images, mistakes)
    sprites.write_sprite(
        PLOTS / "mistakes_sprite.png",
        images[~is_correct][: sprites.MAX_MISTAKES],
        columns=sprites.MISTAKE_COLUMNS,
    )


if __name__ == "__main__":
    run_stage(main)
