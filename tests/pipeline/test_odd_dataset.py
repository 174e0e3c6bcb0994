"""The whole pipeline on a dataset with everything that MNIST lacks."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from helpers import STAGES, copy_repository, core_mlp, run, run_stages, write_params

from core_mlp.evaluation import metrics
from core_mlp.pipeline.files import write_csv
from core_mlp.results.evaluate import ClassAccuracy, Confusion, Mistake

CLASS_NAMES = ["Übergröße, rot", "a|b", "<b>bold</b>", "two  spaces & $x$"]
SHAPE = (16, 20, 3)
NUM_TRAIN, NUM_TEST = 1500, 101


class OddPictures(tfds.core.GeneratorBasedBuilder):
    """RGB noise in which a bright block of rows tells the class."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=SHAPE),
            "label": tfds.features.ClassLabel(names=CLASS_NAMES),
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(0, NUM_TRAIN),
            "test": self._generate_examples(1, NUM_TEST),
        }

    def _generate_examples(self, seed, count):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 100, [count, *SHAPE], np.uint8)
        for index, image in enumerate(images):
            label = index % len(CLASS_NAMES)
            image[4 * label : 4 * label + 4, :, label % 3] += 120
            yield index, {"image": image, "label": label}


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A repository in which all stages have run, with most options on."""
    folder = copy_repository(tmp_path_factory.mktemp("odd"))
    write_params(
        folder,
        dataset="odd_pictures",
        validation_size=101,
        precision="bfloat16",
        memory_budget=1,
        batch_size=97,
        conv_filters=[4, 8],
        epochs=3,
        augmentation={"shift": 1.0, "elastic": 0.5, "horizontal_flip": True},
    )
    run_stages(folder, *STAGES)
    run("dvc", "commit", "--quiet", "--force", *STAGES, cwd=folder)
    return folder


def rows(folder, name):
    with (folder / "plots" / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_it_is_learned_and_evaluated(repository):
    summary = json.loads((repository / "metrics/evaluate.json").read_text())

    assert summary["test_accuracy"] > 0.9
    assert {row["label"] for row in rows(repository, "per_class.csv")} == set(
        CLASS_NAMES
    )
    confusion = rows(repository, "confusion.csv")
    assert {row["actual"] for row in confusion} == set(CLASS_NAMES)
    assert sum(int(row["count"]) for row in confusion) == 101


def test_its_saved_model_answers(repository):
    path = str(repository / "models/saved_model")
    classify = tf.saved_model.load(path).signatures["serving_default"]
    images = np.load(repository / "data/raw/test/images.npy")

    answers = classify(images=tf.constant(images))

    labels = np.load(repository / "data/raw/test/labels.npy")
    summary = json.loads((repository / "metrics/evaluate.json").read_text())
    accuracy = np.mean(answers["classes"].numpy() == labels)
    assert round(float(accuracy), 6) == summary["test_accuracy"]


@pytest.mark.usefixtures("fabricated")  # Evaluated without DVC.
def test_report_and_model_card_show_its_names_as_text(repository):
    run("git", "add", "--all", cwd=repository)
    run("git", "commit", "--quiet", "--message", "Odd", cwd=repository)
    # As if another model had made one more mistake in each class.
    counts = np.zeros([len(CLASS_NAMES)] * 2, np.int64)
    for row in rows(repository, "confusion.csv"):
        pair = CLASS_NAMES.index(row["actual"]), CLASS_NAMES.index(row["predicted"])
        counts[pair] = int(row["count"])
    mistakes = [Mistake(**row) for row in rows(repository, "mistakes.csv")]
    for n, name in enumerate(CLASS_NAMES):
        counts[n, n] -= 1
        counts[n, n - 1] += 1
        mistakes.append(Mistake(10_000 + n, name, CLASS_NAMES[n - 1], 0.5))
    plots, pairs = repository / "plots", metrics.confused_pairs(counts, CLASS_NAMES)
    write_csv(plots / "confusion.csv", pairs, Confusion)
    classes = metrics.class_accuracies(counts, CLASS_NAMES)
    write_csv(plots / "per_class.csv", classes, ClassAccuracy)
    write_csv(plots / "mistakes.csv", mistakes, Mistake)
    path = repository / "metrics/evaluate.json"
    accuracy = metrics.proportion(np.trace(counts), NUM_TEST)
    names = "test_accuracy", "test_accuracy_low", "test_accuracy_high"
    changed = dict(zip(names, accuracy, strict=True))
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    assert core_mlp("report", "HEAD", cwd=repository).returncode == 0

    for name in ("report.md", "MODEL_CARD.md"):
        text = (repository / name).read_text()
        assert "Übergröße, rot" in text
        assert "a\\|b" in text
        assert "\\<b\\>bold\\</b\\>" in text
    page = (repository / "report.html").read_text()
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>" not in page
    assert ">a|b</td>" in page


def test_its_metrics_and_plots_can_be_compared(repository):
    output = run("dvc", "plots", "diff", "--json", "HEAD", cwd=repository)

    assert "errors" not in json.loads(output)
