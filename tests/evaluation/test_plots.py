"""Figures have reproducible bytes and show what they should."""

import tracemalloc

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from core_mlp.evaluation import plots
from core_mlp.evaluation.mistakes import draw_mistakes
from core_mlp.reporting import figures
from core_mlp.results.evaluate import Mistake
from core_mlp.results.train import EpochResult

HISTORY = [
    EpochResult(1, 0.5, 0.4, 0.8, 0.9),
    EpochResult(2, 0.3, 0.3, 0.9, 1.0),
]
RGB_IMAGES = np.random.default_rng(0).integers(0, 256, [5, 8, 8, 3], np.uint8)
ODD_NAME = r"no formula: $\fr$"
NAMES = ["cat", ODD_NAME]


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(
            lambda path: plots.draw_examples(path, RGB_IMAGES, list("abcde"), "Title"),
            id="examples",
        ),
        pytest.param(
            lambda path: draw_mistakes(
                path, RGB_IMAGES, [Mistake(2, "a", ODD_NAME, 1)]
            ),
            id="mistakes",
        ),
        pytest.param(lambda path: draw_mistakes(path, RGB_IMAGES, []), id="none"),
        pytest.param(lambda path: figures.draw_history(path, HISTORY), id="history"),
        pytest.param(
            lambda path: figures.draw_confusion(
                path,
                {
                    (a, b): int(a == b)
                    for a in ("cat", ODD_NAME)
                    for b in ("cat", ODD_NAME)
                },
                ["cat", ODD_NAME],
            ),
            id="confusion",
        ),
    ],
)
def test_the_same_figure_has_the_same_bytes(tmp_path, draw):
    draw(tmp_path / "first.png")
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 20}):
        draw(tmp_path / "plots/second.png")

    content = (tmp_path / "first.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert content == (tmp_path / "plots/second.png").read_bytes()


@pytest.mark.parametrize("num_classes", [2, 26, 100, 400])
def test_a_confusion_of_many_classes_shows_the_most_confused(tmp_path, num_classes):
    names = [f"class {n}" for n in range(num_classes)]
    confusion = {(name, name): 10 for name in names}
    confusion[names[-1], names[-2]] = 5
    shown = figures.most_confused_classes(confusion, names)

    assert len(shown) == min(num_classes, figures.MAX_CLASSES)
    assert shown[-2:] == names[-2:]
    assert shown == sorted(shown, key=names.index)
    # Measuring takes five times as long as drawing.
    if num_classes == 400:
        tracemalloc.start()
    figures.draw_confusion(tmp_path / "confusion.png", confusion, names)
    if num_classes == 400:
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
        tracemalloc.stop()
    height, width = imread(tmp_path / "confusion.png").shape[:2]
    assert height < width < 2000


def test_pictures_of_photographs_are_small_files(tmp_path):
    """They are kept in Git."""
    images = np.random.default_rng(0).integers(0, 256, [81, 224, 224, 3], np.uint8)
    mistakes = [Mistake(n, "a", "b", 0.5) for n in range(len(images))]
    plots.draw_examples(tmp_path / "examples.png", images, ["a"] * 81, "Photographs")
    draw_mistakes(tmp_path / "mistakes.png", images, mistakes)

    for path in tmp_path.iterdir():
        assert path.stat().st_size < 1_000_000, path.name


@pytest.mark.parametrize(
    "name", ["a\x1b[31m", "\u202eb", "x" * 500, "日本", "😀", "$\\fr$", "a\nb"]
)
def test_any_name_can_be_drawn(tmp_path, name):
    plots.draw_examples(tmp_path / "a.png", RGB_IMAGES[:1], [name], name)
    confusion = {("a", "a"): 1, (name, name): 1}
    figures.draw_confusion(tmp_path / "b.png", confusion, ["a", name])

    assert imread(tmp_path / "b.png").shape[0] < 1000


def test_examples_are_visible(tmp_path):
    """Images drawn white on white, or not at all, would be an empty picture."""
    images = np.zeros([4, 8, 8, 1], np.uint8)
    path = tmp_path / "examples.png"
    plots.draw_examples(path, images, ["black"] * 4, "Black")

    gray = imread(path)[..., :3].mean(axis=-1)
    assert np.mean(gray < 0.1) > 0.4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_images_of_one_row_or_column_keep_their_shape(
    monkeypatch, tmp_path, size, channels
):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda path, figure: drawn.append(figure))
    images = np.full([2, *size, channels], 100, np.uint8)

    plots.draw_examples(tmp_path / "a.png", images, ["a", "b"], "Small")

    (pixels,) = drawn[0].axes[0].images
    expected = size if channels == 1 else (*size, 3)
    assert pixels.get_array().shape == expected


def test_titles_of_ordinary_class_names_do_not_overlap(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "save_figure", lambda path, figure: drawn.append(figure))
    images = np.zeros([25, 28, 28, 1], np.uint8)
    mistakes = [Mistake(index, "Ankle boot", "T-shirt/top", 0.9) for index in range(25)]

    draw_mistakes(tmp_path / "mistakes.png", images, mistakes)

    drawn[0].draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in drawn[0].axes]
    frames = [axes.get_window_extent() for axes in drawn[0].axes]
    for box in boxes:
        assert box.count_overlaps(boxes) == 1  # With itself.
        assert box.count_overlaps(frames) == 0


def test_confusion_is_normalized_by_the_actual_class(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("seaborn.heatmap", lambda rates, **options: drawn.append(rates))
    confusion = {("a", "a"): 3, ("a", "b"): 1, ("b", "a"): 0, ("b", "b"): 2}

    figures.draw_confusion(tmp_path / "confusion.png", confusion, ["a", "b"])

    (rates,) = drawn
    np.testing.assert_array_equal(rates, [[0.75, 0.25], [0.0, 1.0]])
    assert list(rates.index) == list(rates.columns) == ["a", "b"]
