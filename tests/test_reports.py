"""Writers and figures: the same values give the same bytes."""

import json

import matplotlib
import numpy as np
import pytest

from core_mlp import figures, reports
from core_mlp.descriptions import DatasetInfo
from core_mlp.errors import InputError
from core_mlp.training import EpochMetrics

INFO = DatasetInfo(
    dataset="pets",
    version="1.0.0",
    image_shape=(2, 2, 3),
    class_names=("cat", "dog"),
    num_examples={"train": 3},
)


def test_json_is_rounded_and_ends_with_a_line_end(tmp_path):
    path = tmp_path / "metrics/test.json"
    reports.write_json(path, {"accuracy": np.float64(2 / 3), "loss": 1.0, "epochs": 10})

    assert path.read_text() == (
        '{\n  "accuracy": 0.666667,\n  "loss": 1.0,\n  "epochs": 10\n}\n'
    )


def test_csv_has_a_header_rounded_floats_and_unix_line_ends(tmp_path):
    path = tmp_path / "plots/test.csv"
    reports.write_csv(
        path, ["label", "share"], [("a,b", np.float32(2 / 3)), (np.int64(3), 1e-9)]
    )

    assert path.read_bytes() == b'label,share\n"a,b",0.666667\n3,0.0\n'


def test_a_description_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "info.json"
    INFO.write(path)

    assert DatasetInfo.read(path) == INFO


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('"train": 3', '"train": 0', "num_examples.train: Input should be greater"),
        ('"version": "1.0.0",', "", "version: Field required"),
        ('"version"', '"release"', "version: Field required"),
        ('"cat",', "", "class_names: Tuple should have at least 2 items"),
        ('"cat"', '"dog"', "class_names: Value error, two classes of one name"),
        ("    2,\n    2,", "    70000,\n    2,", "image_shape.0: Input should be less"),
        ('"sha256": {', '"sha256": {"a/b": "c"', "String should match pattern"),
        ("{", "", "Invalid JSON"),
    ],
)
def test_a_description_that_is_damaged_is_refused(tmp_path, old, new, problem):
    path = tmp_path / "info.json"
    INFO.write(path)
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(InputError) as error:
        DatasetInfo.read(path)

    assert str(error.value).startswith(f"{path}: ")
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_a_description_is_plain_json(tmp_path):
    INFO.write(tmp_path / "info.json")

    assert json.loads((tmp_path / "info.json").read_text())["image_shape"] == [2, 2, 3]


HISTORY = [
    EpochMetrics(1, 0.5, 0.4, 0.8, 0.9, 1e4),
    EpochMetrics(2, 0.3, 0.3, 0.9, 1, 1),
]


@pytest.mark.parametrize(
    "draw",
    [
        pytest.param(
            lambda path: figures.draw_examples(
                path,
                np.random.default_rng(0).integers(0, 256, [5, 8, 8, 3], np.uint8),
                list("abcde"),
                columns=3,
                title="Examples",
            ),
            id="examples",
        ),
        pytest.param(
            lambda path: figures.draw_label_distribution(
                path, ["train", "test"], ["cat", "dog"], np.array([[3, 4], [1, 2]])
            ),
            id="label_distribution",
        ),
        pytest.param(lambda path: figures.draw_history(path, HISTORY), id="history"),
        pytest.param(
            lambda path: figures.draw_confusion(
                path, np.array([[3, 1], [0, 0]]), ["cat", r"no formula: $\fr$"]
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


def test_examples_are_visible(tmp_path):
    """Images drawn white on white, or not at all, are an empty picture."""
    from matplotlib.image import imread

    images = np.zeros([4, 8, 8, 1], np.uint8)
    path = tmp_path / "examples.png"
    figures.draw_examples(path, images, ["black"] * 4, columns=2, title="Black")

    grey = imread(path)[..., :3].mean(axis=-1)
    assert np.mean(grey < 0.1) > 0.4
