"""Compares our epoch with the training loop of TensorFlow's guide, in images/s.

The guide's loop takes its steps from Python: a batch from tf.data, the forward pass in
a `tf.function`, gradients and an Adam of loose operations in eager mode. Both train
the guide's network on the same images in batches of 128; the runs alternate, and each
figure is the median. Run it after `dvc repro`, from the root of the repository:

    PYTHONPATH=src python benchmarks/guide_loop.py
"""

import math
import statistics
import time
from pathlib import Path

import tensorflow as tf

from core_mlp import records, training
from core_mlp.descriptions import DatasetInfo
from core_mlp.layers import MLP
from core_mlp.optimizers import Adam

TFRECORDS = Path("data/tfrecords")
NUM_RUNS = 5
BATCH_SIZE = 128
HIDDEN_SIZES = (700, 500)


class GuideAdam:
    """Adam as the guide has it: eager, an operation at a time."""

    def __init__(self) -> None:
        self.t = 1.0
        self.means, self.squares = [], []

    def apply_gradients(self, gradients: list, parameters: list) -> None:
        """Takes one step."""
        if not self.means:
            self.means = [tf.Variable(tf.zeros(p.shape)) for p in parameters]
            self.squares = [tf.Variable(tf.zeros(p.shape)) for p in parameters]
        for gradient, parameter, mean, square in zip(
            gradients, parameters, self.means, self.squares, strict=True
        ):
            mean.assign(0.9 * mean + 0.1 * gradient)
            square.assign(0.999 * square + 0.001 * tf.square(gradient))
            mean_hat = mean / (1 - 0.9**self.t)
            square_hat = square / (1 - 0.999**self.t)
            parameter.assign_sub(1e-3 * mean_hat / (tf.sqrt(square_hat) + 1e-7))
        self.t += 1.0


def guide_epoch(forward, parameters: list, optimizer, batches) -> None:
    """Trains for one epoch as the guide does."""
    losses, accuracies = [], []
    for inputs, labels in batches:
        with tf.GradientTape() as tape:
            logits = forward(inputs)
            loss = tf.reduce_mean(training.cross_entropy(labels, logits))
            predicted = tf.argmax(tf.nn.softmax(logits), axis=1)
            is_correct = tf.cast(tf.equal(predicted, labels), tf.float32)
            accuracy = tf.reduce_mean(is_correct)
        optimizer.apply_gradients(tape.gradient(loss, parameters), parameters)
        losses.append(loss)
        accuracies.append(accuracy)
    tf.reduce_mean(losses).numpy(), tf.reduce_mean(accuracies).numpy()


def main() -> None:
    training.set_up_device()
    info = DatasetInfo.read(TFRECORDS / "info.json")
    images, labels = records.read_split(
        TFRECORDS,
        "train",
        num_examples=info.num_examples["train"],
        image_shape=info.image_shape,
        num_classes=len(info.class_names),
    )
    examples = training.Examples(tf.constant(images), tf.constant(labels))
    input_size = math.prod(info.image_shape)
    sizes = [*HIDDEN_SIZES, len(info.class_names)]
    ours, guides = (MLP(input_size, sizes, seed=0) for _ in range(2))
    our_adam, guide_adam = Adam(ours.trainable_variables, epsilon=1e-7), GuideAdam()
    guide_forward = tf.function(guides)

    def preprocess(images, labels):
        return tf.cast(tf.reshape(images, [-1, input_size]), tf.float32) / 255.0, labels

    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    batches = dataset.batch(BATCH_SIZE).map(preprocess)

    def run_ours() -> None:
        loss, _ = training.train_epoch(
            ours, our_adam, examples, tf.range(len(labels)), BATCH_SIZE
        )
        loss.numpy()

    def run_guides() -> None:
        guide_epoch(guide_forward, guides.trainable_variables, guide_adam, batches)

    def rate(run) -> float:
        start = time.perf_counter()
        run()
        return len(labels) / (time.perf_counter() - start)

    # The first run of each is a warm-up.
    pairs = [(rate(run_ours), rate(run_guides)) for _ in range(NUM_RUNS + 1)][1:]
    for name, rates in zip(
        ("ours", "the guide's"), zip(*pairs, strict=True), strict=True
    ):
        print(f"{name}: {statistics.median(rates):,.0f} images/s, median of {NUM_RUNS}")
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"ratio: {ratio:.1f}, median of the pairs")


if __name__ == "__main__":
    main()
