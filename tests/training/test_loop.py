"""The loop over epochs."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from helpers import train_params

from core_mlp.data.images import normalize_images
from core_mlp.pipeline.errors import InputError
from core_mlp.training import loop, step
from core_mlp.training.input_pipeline import Chunk, Examples, epoch_permutation
from core_mlp.training.model import MLP
from core_mlp.training.optimizers import Adam, Averaging
from core_mlp.training.step import Objective


class StepRecorder(tf.Module):
    """Records for each weight in which step, from 1, its gradient was not zero."""

    def __init__(self, num_weights):
        self.steps = tf.Variable(tf.zeros([num_weights], tf.int32))
        self.counts = tf.Variable(tf.zeros([num_weights], tf.int32))
        self.step = tf.Variable(0)

    def apply_gradients(self, gradients, parameters):
        del parameters
        is_used = tf.reduce_any(gradients[0] != 0.0, axis=1)
        self.step.assign_add(1)
        self.steps.assign(tf.where(is_used, self.step, self.steps))
        self.counts.assign_add(tf.cast(is_used, tf.int32))


class Linear(tf.Module):
    """Logits of two classes."""

    def __init__(self, num_pixels):
        self.weights = tf.Variable(tf.zeros([num_pixels, 2]))

    @property
    def trainable_variables(self):
        return (self.weights,)

    def __call__(self, images):
        return tf.matmul(tf.reshape(images, [images.shape[0], -1]), self.weights)


def random_examples(num_examples, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, [num_examples, 4, 4, 1], np.uint8)
    labels = rng.integers(0, 3, num_examples)
    return Examples(tf.constant(images), tf.constant(labels))


def new_model_and_optimizer(learning_rate=1e-3):
    model = MLP([4, 4, 1], [32, 3], seed=1)
    return model, Adam(model.trainable_variables, learning_rate=learning_rate)


def train(
    model, optimizer, examples, *, evaluated=None, kept=None, compiled=None, **changes
):
    p = train_params(**({"epochs": 2, "batch_size": 16} | changes))
    models = loop.Models(model, evaluated or model, kept or evaluated or model)

    def epoch_data(epoch):
        order = epoch_permutation(len(examples.labels), [7, epoch])
        yield Chunk(examples, order, tf.constant([7, epoch]))

    epochs = loop.train(
        models,
        optimizer,
        Objective.of(p),
        epoch_data=epoch_data,
        validation=examples,
        history=[],
        p=p,
        compiled=compiled or step.compile_functions(),
    )
    return [epoch.result for epoch in epochs]


def chunks_of(examples, *bounds):
    for start, end in itertools.pairwise(bounds):
        part = Examples(*(tensor[start:end] for tensor in examples))
        yield Chunk(part, tf.range(end - start), tf.constant([0, start]))


compiled_epoch = tf.function(step.train_epoch, jit_compile=True)
compiled_evaluation = tf.function(step.evaluate, jit_compile=True)


def one_chunk(examples, order):
    return Chunk(examples, order, tf.constant([0, 0]))


@pytest.mark.parametrize("batch_size", [1, 7, 10, 50, 64])
def test_every_example_counts_once_an_epoch_and_in_a_new_order_the_next(batch_size):
    # The gradient of a pixel's weight tells whether its only image was in the step.
    images = 255 * np.eye(50, dtype=np.uint8).reshape(50, 50, 1, 1)
    examples = Examples(tf.constant(images), tf.zeros([50], tf.int64))
    steps = []
    for epoch in (1, 2):
        recorder = StepRecorder(50)
        order = epoch_permutation(50, [0, epoch])
        chunk = one_chunk(examples, order)
        compiled_epoch(Linear(50), recorder, Objective(), chunk, batch_size=batch_size)
        np.testing.assert_array_equal(recorder.counts, np.ones(50))
        steps.append(recorder.steps.numpy())

    for of_example in steps:
        sizes = np.bincount(of_example)[1:]
        assert set(sizes[:-1]) <= {batch_size}
        assert sizes[-1] == (50 % batch_size or batch_size)
    if batch_size < 50:
        assert np.count_nonzero(steps[0] != steps[1]) > 25
        assert np.count_nonzero(steps[0] != np.arange(50) // batch_size + 1) > 25


def test_the_order_does_not_repeat_among_seeds_and_epochs():
    orders = {
        tuple(epoch_permutation(20, [seed, epoch]).numpy())
        for seed in range(5)
        for epoch in range(5)
    }

    assert len(orders) == 25
    assert {tuple(sorted(order)) for order in orders} == {tuple(range(20))}


def test_the_epoch_is_the_same_as_a_plain_eager_loop():
    examples = random_examples(40)
    model, optimizer = new_model_and_optimizer()
    order = epoch_permutation(40, [7, 1]).numpy()
    chunk = one_chunk(examples, tf.constant(order))
    our_sum, our_correct = compiled_epoch(
        model, optimizer, Objective(), chunk, batch_size=16
    )

    eager, optimizer = new_model_and_optimizer()
    loss_sum = num_correct = 0
    for batch in (order[:16], order[16:32], order[32:]):
        inputs = examples.images.numpy()[batch] / np.float32(255)
        labels = examples.labels.numpy()[batch]
        with tf.GradientTape() as tape:
            logits = eager(tf.constant(inputs))
            losses = step.cross_entropy(labels, logits)
            mean = tf.reduce_mean(losses)
        parameters = eager.trainable_variables
        optimizer.apply_gradients(tape.gradient(mean, parameters), parameters)
        loss_sum += losses.numpy().sum()
        num_correct += np.count_nonzero(logits.numpy().argmax(axis=1) == labels)

    np.testing.assert_allclose(our_sum, loss_sum, rtol=1e-6)
    assert our_correct == num_correct
    for ours, theirs in zip(model.variables, eager.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_epoch_is_traced_once_with_a_short_last_batch_too():
    class CountedAdam(Adam):
        num_traces = 0

        def apply_gradients(self, gradients, parameters):
            self.num_traces += 1
            super().apply_gradients(gradients, parameters)

    model = MLP([4, 4, 1], [32, 3], seed=1)
    optimizer = CountedAdam(model.trainable_variables)

    train(model, optimizer, random_examples(40), epochs=4)

    assert optimizer.num_traces == 1
    assert optimizer.t == 12


def test_evaluation_does_not_depend_on_the_batch_size():
    examples = random_examples(140)
    model, _ = new_model_and_optimizer()

    results = [
        [
            float(value) / 140
            for value in compiled_evaluation(model, examples, batch_size=batch_size)
        ]
        for batch_size in (1, 7, 128, 140, 1000)
    ]

    labels, logits = examples.labels, model(normalize_images(examples.images))
    expected = [
        step.cross_entropy(labels, logits).numpy().mean(),
        np.mean(logits.numpy().argmax(axis=1) == labels.numpy()),
    ]
    for result in results:
        np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_training_is_the_same_to_the_last_bit_again():
    examples = random_examples(100)
    runs = []
    for _ in range(2):
        model, optimizer = new_model_and_optimizer()
        history = train(model, optimizer, examples)
        weights = [variable.numpy().tobytes() for variable in model.variables]
        runs.append((history, weights))

    assert runs[0] == runs[1]


def test_the_network_learns_32_images_by_heart():
    examples = random_examples(32)
    model, optimizer = new_model_and_optimizer(learning_rate=1e-2)

    history = train(model, optimizer, examples, epochs=150)

    assert history[-1].validation_accuracy == 1.0
    assert history[-1].validation_loss < 0.05
    assert [result.epoch for result in history] == list(range(1, 151))


def test_xla_and_the_graph_executor_agree_within_rounding():
    examples = random_examples(100)
    results = []
    for jit_compile in (True, None):
        model, optimizer = new_model_and_optimizer()
        train_epoch, evaluate = (
            tf.function(function, jit_compile=jit_compile)
            for function in (step.train_epoch, step.evaluate)
        )
        chunk = one_chunk(examples, tf.range(100))
        sums = train_epoch(model, optimizer, Objective(), chunk, batch_size=16)
        results.append([float(value) for value in (*sums, *evaluate(model, examples))])

    np.testing.assert_allclose(*results, rtol=1e-5)


def test_examples_in_parts_are_examples_at_once():
    examples = random_examples(100)

    def train_in_parts(*bounds):
        model, optimizer = new_model_and_optimizer()
        (epoch,) = loop.train(
            loop.Models(model, model, model),
            optimizer,
            Objective(),
            epoch_data=lambda epoch: chunks_of(examples, *bounds),
            validation=examples,
            history=[],
            p=train_params(epochs=1, batch_size=16),
            compiled=step.compile_functions(),
        )
        assert epoch.images_per_second > 0
        return epoch.result

    np.testing.assert_allclose(
        train_in_parts(0, 64, 100), train_in_parts(0, 100), rtol=1e-6
    )


def test_the_network_learns_in_bfloat16_too():
    examples = random_examples(32)
    model = MLP([4, 4, 1], [32, 3], compute_dtype=tf.bfloat16, seed=1)
    optimizer = Adam(model.trainable_variables, learning_rate=1e-2)

    history = train(model, optimizer, examples, epochs=150)

    assert history[-1].validation_accuracy == 1.0


STRENGTHS = {"rotation": 20.0, "shift": 0.5, "elastic": 0.3, "smoothness": 2.0}


def test_augmentation_changes_the_training_images_and_not_the_evaluated_ones():
    examples = random_examples(64)
    histories = []
    for strengths in ({}, STRENGTHS, STRENGTHS):
        model, optimizer = new_model_and_optimizer(learning_rate=0.0 + 1e-30)
        histories.append(train(model, optimizer, examples, augmentation=strengths))

    plain, augmented, again = histories
    for epoch in range(2):
        # The weights hardly move: only the training images differ.
        assert augmented[epoch].train_loss != plain[epoch].train_loss
        assert augmented[epoch].validation_loss == plain[epoch].validation_loss
    assert augmented[0].train_loss != augmented[1].train_loss
    assert augmented == again


def test_the_average_is_evaluated_and_the_best_epoch_kept():
    examples = random_examples(64)
    model, adam = new_model_and_optimizer(learning_rate=0.3)
    averaged, kept = (MLP([4, 4, 1], [32, 3], seed=1) for _ in range(2))
    optimizer = Averaging(adam, averaged.trainable_variables, 0.9)

    history = train(
        *(model, optimizer, examples),
        evaluated=averaged,
        kept=kept,
        epochs=50,
        patience=3,
    )

    accuracies = [result.validation_accuracy for result in history]
    best = accuracies.index(max(accuracies))
    assert len(history) == best + 4 < 50

    def evaluate(model):
        sums = compiled_evaluation(model, examples)
        return float(sums.loss) / 64, float(sums.num_correct) / 64

    assert evaluate(averaged) == (history[-1].validation_loss, accuracies[-1])
    assert evaluate(kept) == (history[best].validation_loss, max(accuracies))
    assert evaluate(model)[0] != history[-1].validation_loss
    assert loop.kept_epoch(history, 3) is history[best]
    assert loop.kept_epoch(history, 0) is history[-1]


class Diverging(tf.Module):
    """Makes the parameters not a number after some steps."""

    def __init__(self, last_step):
        self.last_step = last_step
        self.step = tf.Variable(0)

    def apply_gradients(self, gradients, parameters):
        self.step.assign_add(1)
        for gradient, parameter in zip(gradients, parameters, strict=True):
            is_last = self.step == self.last_step
            parameter.assign_sub(tf.where(is_last, np.nan, 0.01 * gradient))


@pytest.mark.parametrize(("last_step", "epoch"), [(2, 1), (5, 2), (6, 2)])
@pytest.mark.parametrize("bounds", [(0, 40), (0, 16, 40)])
def test_a_loss_that_is_not_finite_ends_the_training(bounds, last_step, epoch):
    examples = random_examples(40)
    model = MLP([4, 4, 1], [3], seed=1)
    history = []

    with pytest.raises(InputError) as error:
        history.extend(
            loop.train(
                loop.Models(model, model, model),
                Diverging(last_step),
                Objective(),
                epoch_data=lambda epoch: chunks_of(examples, *bounds),
                validation=examples,
                history=[],
                p=train_params(epochs=2, batch_size=16),
                compiled=step.compile_functions(),
            )
        )
    assert str(error.value) == (
        f"training diverged: the loss of epoch {epoch} is not finite; try a smaller "
        "learning_rate"
    )


@pytest.mark.parametrize("function", ["train_epoch", "evaluate"])
def test_too_little_memory_is_one_line(function):
    def allocate(*_arguments, **_keywords):
        raise tf.errors.ResourceExhaustedError(None, None, "61 GiB")

    model, optimizer = new_model_and_optimizer()
    examples = random_examples(32)
    compiled = step.compile_functions()._replace(**{function: allocate})

    with pytest.raises(InputError) as error:
        train(model, optimizer, examples, compiled=compiled, hidden_sizes=[32])

    assert str(error.value) == (
        "batch_size = 16, conv_filters = [], hidden_sizes = [32]: an epoch does not "
        "fit into memory; try smaller ones"
    )
