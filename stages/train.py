"""Trains the network.

Reads data/tfrecords/ and the parameters seed, hidden_sizes, batch_size, epochs,
learning_rate, beta_1, beta_2 and epsilon. Writes models/checkpoint/,
metrics/train.json, and in plots/ history.csv, history.png and activations.csv.
"""

import sys
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from core_mlp import checkpoints, figures, params, records, reports, training
from core_mlp.descriptions import DatasetInfo, NetworkInfo
from core_mlp.errors import exit_on_bad_input
from core_mlp.optimizers import Adam

TFRECORDS = Path("data/tfrecords")
CHECKPOINT = Path("models/checkpoint")
METRICS = Path("metrics")
PLOTS = Path("plots")


def main() -> None:
    train_params = params.load_params(params.TrainParams)
    device = training.set_up_device()
    info = DatasetInfo.read(TFRECORDS / "info.json")
    network = NetworkInfo(
        image_shape=info.image_shape,
        hidden_sizes=train_params.hidden_sizes,
        class_names=info.class_names,
    )
    model = checkpoints.build_model(network, seed=train_params.seed)
    num_parameters = sum(v.shape.num_elements() for v in model.trainable_variables)
    optimizer = Adam(
        model.trainable_variables,
        learning_rate=train_params.learning_rate,
        beta_1=train_params.beta_1,
        beta_2=train_params.beta_2,
        epsilon=train_params.epsilon,
    )
    train_examples, validation_examples = (
        _read_split(info, split) for split in ("train", "validation")
    )
    print(f"Training {num_parameters:,} parameters on {device}", flush=True)
    epochs = training.train(
        model,
        optimizer,
        train_examples,
        validation_examples,
        epochs=train_params.epochs,
        batch_size=train_params.batch_size,
        seed=train_params.seed,
    )
    history = []
    # A bar on a terminal only, a line per epoch anywhere.
    with tqdm(total=train_params.epochs, unit="epoch", disable=None) as bar:
        for metrics in epochs:
            history.append(metrics)
            tqdm.write(_format_epoch(metrics, train_params.epochs), file=sys.stdout)
            sys.stdout.flush()
            bar.update()

    checkpoints.write_checkpoint(CHECKPOINT, model, network)
    columns = training.EpochMetrics._fields[:-1]
    reports.write_csv(PLOTS / "history.csv", columns, [row[:-1] for row in history])
    figures.draw_history(PLOTS / "history.png", history)
    last = history[-1]
    reports.write_json(
        METRICS / "train.json",
        {
            "train_loss": last.train_loss,
            "train_accuracy": last.train_accuracy,
            "validation_loss": last.validation_loss,
            "validation_accuracy": last.validation_accuracy,
            "train_epochs": last.epoch,
        },
    )
    x = tf.linspace(-4.0, 4.0, 201)
    reports.write_csv(
        PLOTS / "activations.csv",
        ["x", "relu", "softmax"],
        zip(x.numpy(), tf.nn.relu(x).numpy(), tf.nn.softmax(x).numpy(), strict=True),
    )


def _read_split(info: DatasetInfo, split: str) -> training.Examples:
    images, labels = records.read_split(
        TFRECORDS,
        split,
        num_examples=info.num_examples[split],
        image_shape=info.image_shape,
        num_classes=len(info.class_names),
    )
    return training.Examples(tf.constant(images), tf.constant(labels))


def _format_epoch(metrics: training.EpochMetrics, epochs: int) -> str:
    return (
        f"Epoch {metrics.epoch:>{len(str(epochs))}}/{epochs}: "
        f"train loss {metrics.train_loss:.4f}, accuracy {metrics.train_accuracy:.4f}; "
        f"validation loss {metrics.validation_loss:.4f}, "
        f"accuracy {metrics.validation_accuracy:.4f}; "
        f"{metrics.images_per_second:,.0f} images/s"
    )


if __name__ == "__main__":
    with exit_on_bad_input():
        main()
