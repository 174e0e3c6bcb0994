"""TensorFlow's guide as a script: what the pipeline is measured against.

It does what the notebook does, in the notebook's way: batches from TFDS taken by
Python, the forward pass in a `tf.function`, gradients and an Adam of single operations
in eager mode, figures, the export and its evaluation. `bench.py` times its loop. Run
as a script, it goes from the prepared dataset to the confusion matrix, in a temporary
folder. If MNIST is not prepared yet, TFDS first prepares it from the archives of this
repository:

    python benchmarks/guide.py
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn.metrics import confusion_matrix

ARCHIVES = Path(__file__).parent.parent / "data/source/mnist"
EPOCHS = 10
BATCH_SIZE = 128
HIDDEN_SIZES = (700, 500)


class Layer(tf.Module):
    """A dense layer that is built by its first call."""

    def __init__(self, output_size, activation=tf.identity):
        super().__init__()
        self.output_size = output_size
        self.activation = activation
        self.weights = None

    def __call__(self, x):
        """Maps `[B, input_size]` to `[B, output_size]`."""
        if self.weights is None:
            input_size = x.shape[1]
            limit = (6.0 / (input_size + self.output_size)) ** 0.5
            shape = (input_size, self.output_size)
            self.weights = tf.Variable(tf.random.uniform(shape, -limit, limit, seed=22))
            self.bias = tf.Variable(tf.zeros([self.output_size]))
        return self.activation(tf.add(tf.matmul(x, self.weights), self.bias))


class Network(tf.Module):
    """The layers one after the other, in a `tf.function`."""

    def __init__(self, hidden_sizes=HIDDEN_SIZES):
        super().__init__()
        hidden = [Layer(size, tf.nn.relu) for size in hidden_sizes]
        self.layers = [*hidden, Layer(10)]

    @tf.function
    def __call__(self, x):
        """Maps `[B, 784]` to logits `[B, 10]`."""
        for layer in self.layers:
            x = layer(x)
        return x


class EagerAdam:
    """Adam, an operation at a time."""

    def __init__(self):
        self.t = 1.0
        self.means, self.squares = [], []

    def apply_gradients(self, gradients, parameters):
        """Takes one step."""
        if not self.means:
            self.means = [tf.Variable(tf.zeros(p.shape)) for p in parameters]
            self.squares = [tf.Variable(tf.zeros(p.shape)) for p in parameters]
        for index, (gradient, parameter) in enumerate(
            zip(gradients, parameters, strict=True)
        ):
            mean, square = self.means[index], self.squares[index]
            mean.assign(0.9 * mean + (1 - 0.9) * gradient)
            square.assign(0.999 * square + (1 - 0.999) * tf.square(gradient))
            mean_hat = mean / (1 - 0.9**self.t)
            square_hat = square / (1 - 0.999**self.t)
            parameter.assign_sub(1e-3 * (mean_hat / (tf.sqrt(square_hat) + 1e-7)))
        self.t += 1.0


def load_batches(split, batch_size=BATCH_SIZE):
    """Returns a split of MNIST in batches, `[B, 784]` float32 and `[B]` int64."""
    with tempfile.TemporaryDirectory() as extract_dir:
        config = tfds.download.DownloadConfig(
            extract_dir=extract_dir, manual_dir=ARCHIVES, try_download_gcs=False
        )
        batches = tfds.load(
            "mnist",
            split=split,
            batch_size=batch_size,
            as_supervised=True,
            download_and_prepare_kwargs={"download_config": config},
        )
    return batches.map(lambda images, labels: (normalize(images), labels))


def normalize(images):
    """Flattens images and scales them to [0, 1]."""
    return tf.reshape(images, [-1, 784]) / 255


def loss_and_accuracy(logits, labels):
    """Returns the means over a batch."""
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    is_correct = tf.equal(labels, tf.argmax(tf.nn.softmax(logits), axis=1))
    return tf.reduce_mean(losses), tf.reduce_mean(tf.cast(is_correct, tf.float32))


def train_epoch(network, optimizer, batches):
    """Trains once on every batch; returns the means of the batches' figures."""
    losses, accuracies = [], []
    for images, labels in batches:
        with tf.GradientTape() as tape:
            loss, accuracy = loss_and_accuracy(network(images), labels)
        parameters = network.variables
        optimizer.apply_gradients(tape.gradient(loss, parameters), parameters)
        losses.append(loss)
        accuracies.append(accuracy)
    return tf.reduce_mean(losses).numpy(), tf.reduce_mean(accuracies).numpy()


def evaluate(network, batches):
    """Returns the means of the batches' figures."""
    figures = [loss_and_accuracy(network(images), labels) for images, labels in batches]
    return np.mean([[float(value) for value in pair] for pair in figures], axis=0)


class Export(tf.Module):
    """The network with its normalization, for images of any shape."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, None], tf.uint8)])
    def __call__(self, images):
        """Maps `[N, H, W, C]` to classes `[N]`."""
        return tf.argmax(tf.nn.softmax(self.network(normalize(images))), axis=1)


def main():
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))


def run(folder):
    """Does what the notebook does, with the files in a folder."""

    def save_figure(name):
        plt.savefig(folder / f"{name}.png")
        plt.close()

    train_batches = load_batches("train[10000:]")
    validation_batches = load_batches("train[:10000]")
    shown = tfds.load("mnist", split="train[:1500]", batch_size=-1, as_supervised=True)
    for index in range(9):
        plt.subplot(3, 3, index + 1)
        plt.axis("off")
        plt.imshow(tf.squeeze(shown[0][index]), cmap="gray")
        plt.title(f"label {shown[1][index]}")
    save_figure("examples")
    sns.countplot(x=shown[1].numpy())
    save_figure("labels")
    for activation in (tf.nn.relu, tf.nn.softmax):
        x = tf.linspace(-4.0, 4.0, 201)
        plt.plot(x, activation(x))
        save_figure(activation.__name__)

    network, optimizer = Network(), EagerAdam()
    history = []
    for epoch in range(EPOCHS):
        figures = train_epoch(network, optimizer, train_batches)
        history.append([*figures, *evaluate(network, validation_batches)])
        print(f"Epoch {epoch}:", *(f"{value:.3f}" for value in history[-1]), flush=True)
    for index, metric in enumerate(("loss", "accuracy")):
        plt.plot([row[index] for row in history], label="train")
        plt.plot([row[index + 2] for row in history], label="validation")
        plt.legend()
        save_figure(metric)

    tf.saved_model.save(Export(network), str(folder / "model"))
    model = tf.saved_model.load(str(folder / "model"))
    images, labels = tfds.load("mnist", split="test", batch_size=-1, as_supervised=True)
    predicted, labels = model(images).numpy(), labels.numpy()
    print(f"Test accuracy {np.mean(predicted == labels):.3f}")
    for digit in range(10):
        print(f"Digit {digit}: {np.mean(predicted[labels == digit] == digit):.3f}")
    counts = confusion_matrix(labels, predicted)
    plt.figure(figsize=(10, 10))
    shares = counts / counts.sum(axis=1, keepdims=True)
    sns.heatmap(shares, annot=True, fmt=".4f", square=True, cmap="Blues")
    save_figure("confusion")


if __name__ == "__main__":
    main()
