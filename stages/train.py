"""Trains the network.

Reads data/tfrecords/ and the parameters seed, hidden_sizes, batch_size, epochs,
learning_rate, beta_1, beta_2, epsilon, precision and memory_budget. Writes
models/checkpoint/, metrics/train.json, and in plots/ history.csv, history.png and
activations.csv.
"""

import hashlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tensorflow as tf
from tqdm import tqdm

from core_mlp import checkpoints, figures, params, records, reports, training
from core_mlp.descriptions import DatasetInfo, NetworkInfo
from core_mlp.errors import run_stage
from core_mlp.optimizers import Adam

TFRECORDS = Path("data/tfrecords")
CHECKPOINT = Path("models/checkpoint")
METRICS = Path("metrics")
PLOTS = Path("plots")
# By which the environment changes what TensorFlow and its libraries compute.
SETTINGS = ("TF_", "XLA_", "ONEDNN_", "DNNL_", "NVIDIA_TF32")
# Of a stream, trained on in one call.
CHUNK_BYTES = 2**23


def main() -> None:
    train_params = params.load_params(params.TrainParams)
    device = training.set_up_device()
    info = DatasetInfo.read(TFRECORDS / "info.json")
    for split in ("train", "validation"):
        info.check_files(TFRECORDS, split)
    network = NetworkInfo(
        image_shape=info.image_shape,
        hidden_sizes=train_params.hidden_sizes,
        class_names=info.class_names,
    )
    model = checkpoints.build_model(
        network,
        seed=train_params.seed,
        product_dtype=tf.as_dtype(train_params.precision),
    )
    num_parameters = sum(v.shape.num_elements() for v in model.trainable_variables)
    optimizer = Adam(
        model.trainable_variables,
        learning_rate=train_params.learning_rate,
        beta_1=train_params.beta_1,
        beta_2=train_params.beta_2,
        epsilon=train_params.epsilon,
    )
    chunks_of_epoch = choose_source(info, train_params)
    validation_examples = _read_split(info, "validation")
    print(f"Training {num_parameters:,} parameters on {device}", flush=True)
    with checkpoints.exclusive_state(run_key(train_params, info, device)) as state_path:
        variables = [*model.variables, *optimizer.variables]
        history = [
            training.EpochMetrics(int(epoch), *others)
            for epoch, *others in checkpoints.restore_state(state_path, variables)
        ]
        if history:
            print(f"Going on after epoch {len(history)}, from {state_path}", flush=True)
        epochs = training.train(
            model,
            optimizer,
            chunks_of_epoch,
            validation_examples,
            epochs=range(len(history) + 1, train_params.epochs + 1),
            batch_size=train_params.batch_size,
        )
        # A bar on a terminal only, a line per epoch anywhere.
        with tqdm(
            total=train_params.epochs, initial=len(history), unit="epoch", disable=None
        ) as bar:
            for metrics in epochs:
                history.append(metrics)
                checkpoints.save_state(state_path, variables, history)
                tqdm.write(_format_epoch(metrics, train_params.epochs), file=sys.stdout)
                sys.stdout.flush()
                bar.update()
        checkpoints.write_checkpoint(CHECKPOINT, model, network)
        _write_reports(history)


def run_key(train_params: params.TrainParams, info: DatasetInfo, device: str) -> str:
    """Digests everything that determines the result of a training."""
    cpuinfo = Path("/proc/cpuinfo")
    processor = cpuinfo.read_text().split("\n\n")[0] if cpuinfo.exists() else ""
    code = [Path(__file__), *sorted(Path(training.__file__).parent.glob("*.py"))]
    facts = [
        train_params.model_dump_json(),
        info.model_dump_json(),  # With the digests of the TFRecords.
        tf.__version__,
        device,
        re.sub(r"(?im)^(cpu MHz|bogomips).*$", "", processor),
        *(f"{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS)),
        *(path.read_text(encoding="utf-8") for path in code),
    ]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:32]


def choose_source(
    info: DatasetInfo, train_params: params.TrainParams
) -> Callable[[int], Iterable[tuple[training.Examples, tf.Tensor]]]:
    """Returns the training examples of an epoch: from memory, or from the files."""
    seed, num_examples = train_params.seed, info.num_examples["train"]
    image_bytes = math.prod(info.image_shape)
    budget = train_params.memory_budget * 2**20
    if num_examples * image_bytes <= budget:
        examples = _read_split(info, "train")
        return lambda epoch: [
            (examples, training.epoch_order(num_examples, [seed, epoch]))
        ]
    print(
        f"Streaming {num_examples:,} images: they take more than memory_budget = "
        f"{train_params.memory_budget} MiB"
    )
    batch_bytes = image_bytes * train_params.batch_size
    num_batches = max(1, min(CHUNK_BYTES, budget // 8) // batch_bytes)

    def stream(epoch: int) -> Iterator[tuple[training.Examples, tf.Tensor]]:
        for images, labels in records.stream_split(
            TFRECORDS,
            "train",
            num_examples=num_examples,
            image_shape=info.image_shape,
            num_classes=len(info.class_names),
            chunk_size=num_batches * train_params.batch_size,
            buffer_size=max(1, budget // 2 // image_bytes),
            seed=[seed, epoch],
        ):
            examples = training.Examples(tf.constant(images), tf.constant(labels))
            yield examples, tf.range(len(labels))

    return stream


def _read_split(info: DatasetInfo, split: str) -> training.Examples:
    images, labels = records.read_split(
        TFRECORDS,
        split,
        num_examples=info.num_examples[split],
        image_shape=info.image_shape,
        num_classes=len(info.class_names),
    )
    return training.Examples(tf.constant(images), tf.constant(labels))


def _write_reports(history: list[training.EpochMetrics]) -> None:
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


def _format_epoch(metrics: training.EpochMetrics, epochs: int) -> str:
    return (
        f"Epoch {metrics.epoch:>{len(str(epochs))}}/{epochs}: "
        f"train loss {metrics.train_loss:.4f}, accuracy {metrics.train_accuracy:.4f}; "
        f"validation loss {metrics.validation_loss:.4f}, "
        f"accuracy {metrics.validation_accuracy:.4f}; "
        f"{metrics.images_per_second:,.0f} images/s"
    )


if __name__ == "__main__":
    run_stage(main)
