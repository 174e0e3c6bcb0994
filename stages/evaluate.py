"""Evaluate the SavedModel, and the LiteRT model against it, on the test split.

Reads models/saved_model/, models/litert/ and data/tfrecords/test/. Writes
metrics/evaluate.json, plots/confusion.csv, plots/per_class.csv, plots/calibration.csv,
plots/mistakes.csv, plots/mistakes.png, plots/mistakes_sprite.png and
data/provenance/evaluate.json.
"""

from pathlib import Path

import numpy as np
from sklearn.metrics import confusion_matrix

from core_mlp.data import tfrecords
from core_mlp.evaluation import metrics, plots
from core_mlp.pipeline.files import write_csv, write_json
from core_mlp.pipeline.metadata import SplitInfo
from core_mlp.pipeline.stage import run_stage
from core_mlp.serving import litert, saved_model

TEST = Path("data/tfrecords/test")
PLOTS = Path("plots")


def main() -> None:
    info = SplitInfo.read_split(TEST)
    names = info.class_names
    images, labels = tfrecords.read_split(TEST, info)
    classify = saved_model.load_classifier(Path("models/saved_model"))
    predicted, probabilities = saved_model.predict(classify, images)
    summary = metrics.summarize(labels, predicted, probabilities)
    classify = litert.load_classifier(Path("models/litert"))
    answers, _ = saved_model.predict(classify, images)
    summary["litert_accuracy"] = np.mean(answers == labels)
    summary["litert_differences"] = int(np.count_nonzero(answers != predicted))
    for name, value in summary.items():
        print(f"{name}: {value:.4g}")
    write_json(Path("metrics/evaluate.json"), summary)
    counts = confusion_matrix(labels, predicted, labels=range(len(names)))
    pairs = metrics.confused_pairs(counts, names)
    write_csv(PLOTS / "confusion.csv", ["actual", "predicted", "count"], pairs)
    fields = metrics.ClassAccuracy._fields
    write_csv(PLOTS / "per_class.csv", fields, metrics.class_accuracies(counts, names))
    confidences = probabilities.max(axis=1)
    bins = metrics.calibration_bins(confidences, predicted == labels)
    write_csv(PLOTS / "calibration.csv", metrics.CalibrationBin._fields, bins)
    mistakes = [
        (index, names[labels[index]], names[predicted[index]], confidences[index])
        for index in np.flatnonzero(predicted != labels)
    ]
    fields = ["index", "label", "predicted", "confidence"]
    write_csv(PLOTS / "mistakes.csv", fields, mistakes)
    plots.draw_mistakes(PLOTS / "mistakes.png", images, mistakes)
    plots.write_sprite(PLOTS / "mistakes_sprite.png", images[predicted != labels])


if __name__ == "__main__":
    run_stage(main)
