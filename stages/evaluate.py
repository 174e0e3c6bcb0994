"""Evaluates the SavedModel, and nothing else, on the test split.

Reads models/saved_model/ and data/tfrecords/. Writes metrics/evaluate.json,
metrics/test_split.json, and in plots/ confusion.csv, confusion.png, per_class.csv,
mistakes.csv, mistakes.png and calibration.csv.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

from core_mlp import figures, records, reports, scoring, serving
from core_mlp.descriptions import DatasetInfo, TestSplit
from core_mlp.errors import run_stage

SAVED_MODEL = Path("models/saved_model")
TFRECORDS = Path("data/tfrecords")
METRICS = Path("metrics")
PLOTS = Path("plots")
BATCH_SIZE = 1000
NUM_DRAWN = 25


def main() -> None:
    info = DatasetInfo.read(TFRECORDS / "info.json")
    info.check_files(TFRECORDS, "test")
    names = info.class_names
    images, labels = records.read_split(
        TFRECORDS,
        "test",
        num_examples=info.num_examples["test"],
        image_shape=info.image_shape,
        num_classes=len(names),
    )
    classify = serving.load_classifier(SAVED_MODEL, info.image_shape, len(names))
    answers = [
        classify(images=tf.constant(images[start : start + BATCH_SIZE]))
        for start in range(0, len(images), BATCH_SIZE)
    ]
    predicted, probabilities = (
        np.concatenate([answer[key] for answer in answers])
        for key in ("classes", "probabilities")
    )
    confidences = probabilities.max(axis=1)
    is_correct = predicted == labels

    accuracy = scoring.proportion(np.count_nonzero(is_correct), len(labels))
    bins = scoring.calibration_bins(confidences, is_correct)
    metrics = {
        "test_accuracy": accuracy.value,
        "test_accuracy_low": accuracy.low,
        "test_accuracy_high": accuracy.high,
        "test_loss": scoring.mean_loss(labels, probabilities),
        "test_calibration_error": scoring.calibration_error(bins),
    }
    counts = scoring.confusion_counts(labels, predicted, len(names))
    per_class = sorted(
        (
            (name, scoring.proportion(row[index], row.sum()), row.sum())
            for index, (name, row) in enumerate(zip(names, counts, strict=True))
            if row.any()
        ),
        key=lambda item: item[1].value,
    )
    mistakes = np.flatnonzero(~is_correct)

    print(
        f"test accuracy {accuracy.value:.4f} (95 % interval {accuracy.low:.4f} to "
        f"{accuracy.high:.4f}), loss {metrics['test_loss']:.4f}, "
        f"calibration error {metrics['test_calibration_error']:.4f}"
    )
    print("Accuracy of each class, worst first:")
    for name, share, count in per_class:
        print(f"  {name}: {share.value:.4f} of {count:,}")

    reports.write_json(METRICS / "evaluate.json", metrics)
    # By this, and mistakes.csv, two models can be compared image by image.
    TestSplit(
        dataset=info.dataset,
        version=info.version,
        image_shape=info.image_shape,
        num_examples=len(labels),
        sha256=info.digest_of("test"),
    ).write(METRICS / "test_split.json")
    reports.write_csv(
        PLOTS / "confusion.csv",
        ["actual", "predicted", "count"],
        [
            (actual, other, count)
            for actual, row in zip(names, counts, strict=True)
            for other, count in zip(names, row, strict=True)
        ],
    )
    reports.write_csv(
        PLOTS / "per_class.csv",
        ["label", "accuracy", "error_rate", "count", "low", "high"],
        [
            (name, share.value, 1.0 - share.value, count, share.low, share.high)
            for name, share, count in per_class
        ],
    )
    reports.write_csv(
        PLOTS / "mistakes.csv",
        ["index", "label", "predicted", "confidence"],
        [
            (index, names[labels[index]], names[predicted[index]], confidences[index])
            for index in mistakes
        ],
    )
    reports.write_csv(PLOTS / "calibration.csv", scoring.CalibrationBin._fields, bins)
    figures.draw_confusion(PLOTS / "confusion.png", counts, names)
    surest = mistakes[np.argsort(-confidences[mistakes], kind="stable")][:NUM_DRAWN]
    figures.draw_examples(
        PLOTS / "mistakes.png",
        images[surest],
        [
            f"{names[labels[index]]} taken for {names[predicted[index]]}\n"
            f"{_format_confidence(confidences[index])}"
            for index in surest
        ],
        columns=5,
        title=f"The surest of {len(mistakes)} mistakes",
    )


def _format_confidence(confidence: float) -> str:
    return "over 99.99% sure" if confidence > 0.9999 else f"{confidence:.2%} sure"


if __name__ == "__main__":
    run_stage(main)
