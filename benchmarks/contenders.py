"""The contenders: ours, the guide's loop, Keras, PyTorch, JAX, and the matmul peak.

Each is a generator that trains one epoch at a time and yields its images per second.
All train the same network with Adam on the same images in the same number of steps.
Ours converts raw uint8 images in every step; Keras, PyTorch and JAX are given float32
images that were scaled before the clock starts.
"""

import itertools
import math
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

RAW = Path("data/raw/train")
VALIDATION_SIZE = 10_000
NUM_CLASSES = 10
LEARNING_RATE = 1e-3
EPSILON = 1e-7
DISTORTIONS = {"rotation": 15.0, "scale": 0.15, "shear": 0.2, "shift": 2.0}


class Setting(NamedTuple):
    """What is trained, and how.

    Attributes:
      num_images: Training images per epoch.
      batch_size: Images per step.
      conv_filters: Filters of each 3 x 3 convolution, which halves the sides.
      hidden_sizes: Units of each hidden layer.
      precision: Type of the factors of matrix products.
      is_augmented: Whether the images are distorted by rotation, scale, shear and
        shift, which every contender supports.
      image_shape: Height, width and channels of the pictures, for those that read
        folders.
      image_format: Extension of these pictures.
    """

    num_images: int = 50_000
    batch_size: int = 128
    conv_filters: tuple[int, ...] = ()
    hidden_sizes: tuple[int, ...] = (700, 500)
    precision: str = "float32"
    is_augmented: bool = False
    image_shape: tuple[int, int, int] = (28, 28, 1)
    image_format: str = "png"

    @property
    def layer_sizes(self) -> list[int]:
        """Inputs of the first dense layer, then the units of each of them."""
        side, channels = 28, 1
        for num_filters in self.conv_filters:
            side, channels = math.ceil(side / 2), num_filters
        return [side * side * channels, *self.hidden_sizes, NUM_CLASSES]

    @property
    def flop_per_image(self) -> int:
        """FLOP of the matrix products; no gradient of the images is needed."""
        products = [a * b for a, b in itertools.pairwise(self.layer_sizes)]
        side, channels = 28, [1, *self.conv_filters]
        convolutions = []
        for a, b in itertools.pairwise(channels):
            convolutions.append(side * side * 9 * a * b)
            side = math.ceil(side / 2)
        products = [*convolutions, *products]
        return 6 * sum(products) - 2 * products[0]


def read_arrays(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Reads `[N, 28, 28, 1]` uint8 images and `[N]` int64 labels."""
    # Not from the TFRecords: PyTorch's compiler crashes in a process with TensorFlow.
    images, labels = (
        np.load(RAW / f"{kind}.npy")[VALIDATION_SIZE:] for kind in ("images", "labels")
    )
    return images[: setting.num_images], labels[: setting.num_images]


def read_scaled(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Reads `[N, 784]` float32 images of 0 to 1 and `[N]` int64 labels."""
    images, labels = read_arrays(setting)
    return images.reshape(len(images), -1).astype(np.float32) / 255, labels


def time_epochs(setting: Setting, run_epoch: Callable[[], None]) -> Iterator[float]:
    """Yields images per second."""
    while True:
        start = time.perf_counter()
        run_epoch()
        yield setting.num_images / (time.perf_counter() - start)


def ours(setting: Setting) -> Iterator[float]:
    """Yields the rates that the train stage reports, for images in memory."""
    import tensorflow as tf

    from core_mlp.training.device import set_up_device
    from core_mlp.training.input_pipeline import Chunk, epoch_permutation

    set_up_device()
    examples = _examples(setting)

    def epoch_data(epoch):
        order = epoch_permutation(setting.num_images, [0, epoch])
        return [Chunk(examples, order, tf.constant([0, epoch]))]

    return _train_ours(setting, epoch_data)


def ours_streaming(setting: Setting) -> Iterator[float]:
    """Yields the rates for images that do not fit into the memory budget."""
    from core_mlp.pipeline.metadata import SplitInfo
    from core_mlp.pipeline.params import TrainParams
    from core_mlp.training.device import set_up_device
    from core_mlp.training.input_pipeline import epoch_data

    set_up_device()
    folder = Path("data/tfrecords/train")
    info = SplitInfo.read_split(folder)
    p = {"seed": 0, "batch_size": setting.batch_size, "memory_budget": 16}
    p = TrainParams.model_construct(**p)
    return _train_ours(setting, epoch_data(folder, info, p))


def _examples(setting: Setting):
    import tensorflow as tf

    from core_mlp.training.input_pipeline import Examples

    return Examples(*map(tf.constant, read_arrays(setting)))


def _train_ours(setting: Setting, epoch_data: Callable) -> Iterator[float]:
    import tensorflow as tf

    from core_mlp.pipeline.params import TrainParams
    from core_mlp.training import loop, step
    from core_mlp.training.model import MLP
    from core_mlp.training.optimizers import build_optimizer

    model = MLP(
        setting.image_shape,
        setting.layer_sizes[1:],
        conv_filters=setting.conv_filters,
        compute_dtype=tf.as_dtype(setting.precision),
        seed=0,
    )
    p = TrainParams(
        seed=0,
        hidden_sizes=list(setting.hidden_sizes),
        batch_size=setting.batch_size,
        epochs=100_000,
        learning_rate=LEARNING_RATE,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=EPSILON,
        precision=setting.precision,
        memory_budget=4096,
        augmentation=DISTORTIONS if setting.is_augmented else {},
    )
    models = loop.Models(model, model, model)
    optimizer = build_optimizer(model, model, p, setting.num_images)
    validation = _examples(setting._replace(num_images=1000))
    epochs = loop.train(
        models,
        optimizer,
        step.Objective.of(p),
        epoch_data=epoch_data,
        validation=validation,
        history=[],
        p=p,
        compiled=step.compile_functions(),
    )
    for epoch in epochs:
        yield epoch.images_per_second


def guide(setting: Setting) -> Iterator[float]:
    """Yields the rates of the guide's loop, fed by TFDS as in the guide."""
    import guide
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    batches = guide.load_batches("train[10000:]", setting.batch_size)
    network, adam = guide.Network(setting.hidden_sizes), guide.EagerAdam()
    return time_epochs(setting, lambda: guide.train_epoch(network, adam, batches))


def keras(setting: Setting) -> Iterator[float]:
    """Yields the rates of `fit`, with everything at its default."""
    import keras

    images, labels = read_scaled(setting)
    augmentation = []
    if setting.is_augmented:
        layers = keras.layers
        augmentation = [
            layers.Reshape([28, 28, 1]),
            layers.RandomRotation(15 / 360, fill_mode="nearest"),
            layers.RandomZoom(0.15, 0.15, fill_mode="nearest"),
            layers.RandomShear(0.2, fill_mode="nearest"),
            layers.RandomTranslation(2 / 28, 2 / 28, fill_mode="nearest"),
            layers.Flatten(),
        ]
    convolutions = []
    for num_filters in setting.conv_filters:
        convolutions += [
            keras.layers.Conv2D(num_filters, 3, padding="same"),
            keras.layers.MaxPool2D(padding="same"),
            keras.layers.ReLU(),
        ]
    if convolutions:
        shape = keras.layers.Reshape([28, 28, 1])
        convolutions = [shape, *convolutions, keras.layers.Flatten()]
    model = keras.Sequential(
        [
            keras.Input([784]),
            *augmentation,
            *convolutions,
            *(keras.layers.Dense(n, activation="relu") for n in setting.hidden_sizes),
            keras.layers.Dense(NUM_CLASSES),
        ]
    )
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE, epsilon=EPSILON),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return time_epochs(
        setting,
        lambda: model.fit(images, labels, setting.batch_size, epochs=1, verbose=0),
    )


def pytorch(
    setting: Setting, *, with_compile: bool = False, fused: bool | None = None
) -> Iterator[float]:
    """Yields the rates of a plain PyTorch loop over tensors in memory."""
    import torch
    from torch import nn

    images, labels = map(torch.from_numpy, read_scaled(setting))
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(setting.layer_sizes)]
    between = [part for layer in layers for part in (layer, nn.ReLU())][:-1]
    convolutions = []
    for a, b in itertools.pairwise([1, *setting.conv_filters]):
        convolutions += [
            nn.Conv2d(a, b, 3, padding=1),
            nn.MaxPool2d(2),
            nn.ReLU(),
        ]
    if convolutions:
        convolutions = [nn.Unflatten(1, [1, 28, 28]), *convolutions, nn.Flatten()]
    model = nn.Sequential(*convolutions, *between)
    if convolutions:
        model = model.to(memory_format=torch.channels_last)  # Its fastest form.
    adam = torch.optim.Adam(
        model.parameters(), lr=LEARNING_RATE, eps=EPSILON, fused=fused
    )

    def distort(inputs):
        draws = 2 * torch.rand(7, len(inputs)) - 1
        angle = math.radians(15) * draws[0]
        scale_y, scale_x = 1 + 0.15 * draws[1], 1 + 0.15 * draws[2]
        cos, sin = torch.cos(angle), torch.sin(angle)
        shift = 2 / 14 * draws[4:6]  # affine_grid's unit is half of the width.
        rows = [
            torch.stack([scale_x * cos, scale_x * (0.2 * draws[3] - sin), shift[0]], 1),
            torch.stack([scale_y * sin, scale_y * cos, shift[1]], 1),
        ]
        shape = [len(inputs), 1, 28, 28]
        grid = nn.functional.affine_grid(torch.stack(rows, 1), shape, False)
        sampled = nn.functional.grid_sample(
            inputs.reshape(shape), grid, padding_mode="border", align_corners=False
        )
        return sampled.flatten(1)

    def forward(inputs):
        return model(distort(inputs) if setting.is_augmented else inputs)

    forward = torch.compile(forward) if with_compile else forward
    with_autocast = setting.precision == "bfloat16"

    def run_epoch():
        loss_sum = correct = 0
        for batch in torch.randperm(len(labels)).split(setting.batch_size):
            with torch.autocast("cpu", torch.bfloat16, enabled=with_autocast):
                logits = forward(images[batch])
                loss = nn.functional.cross_entropy(logits.float(), labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
            loss_sum += loss.detach() * len(batch)
            correct += (logits.detach().argmax(1) == labels[batch]).sum()
        float(loss_sum), float(correct)

    return time_epochs(setting, run_epoch)


def pytorch_fused(setting: Setting) -> Iterator[float]:
    """Yields the rates with PyTorch's fused Adam."""
    return pytorch(setting, fused=True)


def pytorch_compile(setting: Setting) -> Iterator[float]:
    """Yields the rates with `torch.compile` and the fused Adam."""
    return pytorch(setting, with_compile=True, fused=True)


def jax_scan(setting: Setting) -> Iterator[float]:
    """Yields the rates of an epoch in JAX that is one `lax.scan`."""
    return jax(setting, with_scan=True)


def jax(setting: Setting, *, with_scan: bool = False) -> Iterator[float]:
    """Yields the rates of a jitted step in JAX, called by Python."""
    import jax
    import jax.numpy as jnp

    images, labels = map(jnp.asarray, read_scaled(setting))
    keys = jax.random.split(jax.random.key(0), len(setting.layer_sizes))
    initialize = jax.nn.initializers.glorot_uniform()
    parameters = [
        (initialize(key, pair), jnp.zeros(pair[1]))
        for key, pair in zip(
            keys, itertools.pairwise(setting.layer_sizes), strict=False
        )
    ]

    filters = [
        initialize(jax.random.key(1), [3, 3, a, b])
        for a, b in itertools.pairwise([1, *setting.conv_filters])
    ]
    parameters = {
        "dense": parameters,
        "filters": [(weights, jnp.zeros(weights.shape[3])) for weights in filters],
    }

    def pool(images):
        return jax.lax.reduce_window(
            images, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "SAME"
        )

    def loss_fn(parameters, inputs, labels):
        if parameters["filters"]:
            inputs = inputs.reshape(-1, 28, 28, 1)
        for weights, bias in parameters["filters"]:
            layout = ("NHWC", "HWIO", "NHWC")
            inputs = jax.lax.conv_general_dilated(
                inputs, weights, (1, 1), "SAME", dimension_numbers=layout
            )
            inputs = jax.nn.relu(pool(inputs) + bias)
        inputs = inputs.reshape(len(inputs), -1)
        for index, (weights, bias) in enumerate(parameters["dense"]):
            inputs = (jax.nn.relu(inputs) if index else inputs) @ weights + bias
        losses = -jnp.take_along_axis(
            jax.nn.log_softmax(inputs), labels[:, None], axis=1
        )
        return losses.mean(), (inputs.argmax(1) == labels).sum()

    def step(state, batch):
        parameters, m, v, t, loss_sum, correct = state
        (loss, right), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            parameters, images[batch], labels[batch]
        )
        t = t + 1
        m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
        v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)

        def updated(parameter, m, v):
            m, v = m / (1 - 0.9**t), v / (1 - 0.999**t)
            return parameter - LEARNING_RATE * m / (jnp.sqrt(v) + EPSILON)

        parameters = jax.tree.map(updated, parameters, m, v)
        return parameters, m, v, t, loss_sum + loss * len(batch), correct + right

    def epoch(state, order):
        end = setting.num_images - setting.num_images % setting.batch_size
        batches = order[:end].reshape(-1, setting.batch_size)
        state, _ = jax.lax.scan(lambda s, batch: (step(s, batch), None), state, batches)
        return step(state, order[end:]) if end < setting.num_images else state

    jitted = jax.jit(epoch if with_scan else step, donate_argnums=0)
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, jax.tree.map(jnp.copy, zeros), 0.0, 0.0, 0)
    rng = np.random.default_rng(0)

    def run_epoch():
        nonlocal state
        order = rng.permutation(setting.num_images)
        size = setting.num_images if with_scan else setting.batch_size
        for start in range(0, setting.num_images, size):
            state = jitted(state, order[start : start + size])
        jax.block_until_ready(state)

    return time_epochs(setting, run_epoch)


def ceiling(setting: Setting) -> Iterator[float]:
    """Yields the rate of an epoch that consists of large matrix products only."""
    import tensorflow as tf

    size, repeats = 4096, 3
    dtype = tf.as_dtype(setting.precision)
    matrix = tf.cast(tf.random.stateless_uniform([size, size], [0, 0]), dtype)
    while True:
        start = time.perf_counter()
        for _ in range(repeats):
            product = tf.matmul(matrix, matrix)
        product.numpy()
        flop_per_second = repeats * 2 * size**3 / (time.perf_counter() - start)
        yield flop_per_second / setting.flop_per_image


def image_folder(setting: Setting) -> Path:
    """Returns a folder of smooth images of ten classes; generates it once."""
    shape = "x".join(map(str, setting.image_shape))
    name = f"core_mlp_bench_{shape}_{setting.image_format}"
    folder = Path(tempfile.gettempdir(), name)
    if folder.exists():
        return folder
    height, width, channels = setting.image_shape
    rng = np.random.default_rng(0)
    for index in range(setting.num_images):
        small = Image.fromarray(
            rng.integers(0, 256, [7, 7, channels], np.uint8).squeeze()
        )
        name = f"{index}.{setting.image_format}"
        path = folder / "train" / str(index % NUM_CLASSES) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return folder


def ours_folder(setting: Setting) -> Iterator[float]:
    """Yields the rates of fetch: files hashed, decoded and written as arrays."""
    from core_mlp.data import arrays
    from core_mlp.sources import folders, listing

    # As in the stage. This process was itself spawned, so it would spawn its workers.
    multiprocessing.set_start_method("fork", force=True)
    folder = image_folder(setting)

    def fetch():
        with tempfile.TemporaryDirectory() as out:
            found = listing.list_folder(folder.parent, folder.name)
            images = folders.find_images(found)
            splits = folders.read_splits(images, found.root, "x", None, None)
            for name, info, write_images, files in splits:
                arrays.write_arrays(Path(out, name), info, write_images, files)

    return time_epochs(setting, fetch)


def tfds_folder(setting: Setting) -> Iterator[float]:
    """Yields the rates of ImageFolder: files decoded."""
    import tensorflow_datasets as tfds

    folder = image_folder(setting)

    def read():
        builder = tfds.ImageFolder(str(folder), shape=setting.image_shape)
        dataset = builder.as_dataset(split="train", batch_size=setting.batch_size)
        for _ in tfds.as_numpy(dataset):
            pass

    return time_epochs(setting, read)


def keras_folder(setting: Setting) -> Iterator[float]:
    """Yields the rates of image_dataset_from_directory: files decoded."""
    import keras

    folder = image_folder(setting)

    def read():
        dataset = keras.utils.image_dataset_from_directory(
            folder / "train",
            color_mode="grayscale" if setting.image_shape[2] == 1 else "rgb",
            image_size=setting.image_shape[:2],
            batch_size=setting.batch_size,
            verbose=False,
        )
        for _ in dataset.as_numpy_iterator():
            pass

    return time_epochs(setting, read)
