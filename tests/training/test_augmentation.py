"""Random distortions, against SciPy and by their statistics."""

import os

import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, run
from scipy import ndimage

from core_mlp.pipeline.params import AugmentationParams
from core_mlp.training import augmentation

IMAGES = tf.constant(np.random.default_rng(0).random([6, 9, 7, 3]), tf.float32)
SEED = tf.constant([3, 4])
STRENGTHS = {
    "rotation": 30.0,
    "scale": 0.2,
    "shear": 0.3,
    "shift": 2.0,
    "elastic": 1.0,
    "smoothness": 3.0,
    "horizontal_flip": True,
}
augment = tf.function(augmentation.augment, jit_compile=True)
elastic_field = tf.function(augmentation.elastic_field, jit_compile=True)


def test_interpolation_agrees_with_scipy():
    rng = np.random.default_rng(1)
    y, x = (rng.uniform(-3, 12, [6, 9, 7]).astype(np.float32) for _ in range(2))

    found = augmentation.interpolate(IMAGES, tf.constant(y), tf.constant(x))

    for n in range(6):
        for channel in range(3):
            image = IMAGES[n, ..., channel].numpy()
            expected = ndimage.map_coordinates(
                image, [y[n], x[n]], order=1, mode="nearest"
            )
            np.testing.assert_allclose(found[n, ..., channel], expected, atol=1e-5)


def test_no_strength_is_no_change():
    np.testing.assert_array_equal(augment(IMAGES, SEED), IMAGES)


@pytest.mark.parametrize("name", sorted(STRENGTHS.keys() - {"smoothness"}))
def test_each_strength_changes_each_image_in_its_own_way(name):
    same = tf.repeat(IMAGES[:1], 6, axis=0)

    found = augment(same, SEED, **{name: STRENGTHS[name]}).numpy()
    again = augment(same, SEED, **{name: STRENGTHS[name]}).numpy()
    other = augment(same, SEED + 1, **{name: STRENGTHS[name]}).numpy()

    np.testing.assert_array_equal(found, again)
    assert np.any(found != other)
    assert len({image.tobytes() for image in found}) == (2 if "flip" in name else 6)


def test_a_flip_is_a_flip():
    found = augment(IMAGES, SEED, horizontal_flip=True).numpy()

    kinds = []
    for image, result in zip(IMAGES.numpy(), found, strict=True):
        is_flipped = np.allclose(result, image[:, ::-1], atol=1e-5)
        assert is_flipped or np.allclose(result, image, atol=1e-5)
        kinds.append(is_flipped)
    assert set(kinds) == {False, True}


def test_rotation_and_shift_move_a_point_at_most_by_their_strength():
    image = np.zeros([1, 21, 21, 1], np.float32)
    image[0, 10, 18] = 1.0
    points = tf.constant(np.repeat(image, 500, axis=0))

    def positions(**strengths):
        found = augment(points, SEED, **strengths).numpy()[..., 0]
        found /= found.sum(axis=(1, 2), keepdims=True)
        grid = np.arange(21) - 10
        return found.sum(axis=2) @ grid, found.sum(axis=1) @ grid

    y, x = positions(rotation=30.0)
    angles = np.degrees(np.arctan2(y, x))
    assert 27 < angles.max() < 32
    assert -32 < angles.min() < -27
    np.testing.assert_allclose(np.hypot(y, x), 8, atol=0.6)
    y, x = positions(shift=2.0)
    for moved in (y, x - 8):
        assert np.abs(moved).max() < 2.01
        assert moved.std() == pytest.approx(2 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("smoothness", [1.0, 4.0])
def test_the_elastic_field_has_variance_one_and_is_smooth(smoothness):
    field = elastic_field(200, 28, 20, smoothness, SEED).numpy()

    assert field.shape == (2, 200, 28, 20)
    np.testing.assert_allclose(field.mean(axis=(1, 2, 3)), 0, atol=0.05)
    np.testing.assert_allclose(field.std(axis=1), 1, atol=0.3)
    # White noise, blurred by a Gaussian, has this correlation between neighbors.
    neighbors = np.mean(field[:, :, 14, 10] * field[:, :, 14, 11])
    expected = np.exp(-0.25 / smoothness**2)
    assert neighbors == pytest.approx(expected, abs=0.15)


def test_the_rows_have_each_image_and_eight_draws():
    images = np.random.default_rng(0).integers(0, 256, [3, 8, 8, 1], np.uint8)

    rows = augmentation.draw_rows(images, AugmentationParams(rotation=90.0))

    assert rows.shape == (3, 9, 8, 8, 1)
    np.testing.assert_array_equal(rows[:, 0], images)
    assert len({image.tobytes() for row in rows for image in row}) == 27


def test_without_distortions_the_rows_have_the_images_alone():
    images = np.random.default_rng(0).integers(0, 256, [3, 8, 8, 1], np.uint8)

    rows = augmentation.draw_rows(images, AugmentationParams())

    np.testing.assert_array_equal(rows, images[:, np.newaxis])


@pytest.mark.slow
def test_the_elastic_field_does_not_depend_on_the_number_of_cores():
    code = (
        "import tensorflow as tf; from core_mlp.training import augmentation, device; "
        "device.set_up_device(); "
        "field = tf.function(augmentation.elastic_field, jit_compile=True); "
        "print(field(128, 28, 28, 4.0, tf.constant([1, 2])).numpy().tobytes().hex())"
    )
    one, all_cores = (
        run(*("taskset", "--cpu-list", cores, "python", "-c", code), cwd=ROOT)
        for cores in ("0", f"0-{os.cpu_count() - 1}")
    )

    assert one.split()[-1] == all_cores.split()[-1]
