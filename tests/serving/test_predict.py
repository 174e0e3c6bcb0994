"""`core-mlp predict`: any picture, prepared as in training."""

import csv
import io
import json
import os
import shutil
import socket
import sys

import numpy as np
import pytest
from helpers import ROOT, draw_digit, run, try_to_run
from PIL import Image

from core_mlp import cli
from core_mlp.data.borders import border_pixels
from core_mlp.pipeline.errors import InputError
from core_mlp.pipeline.metadata import NetworkInfo, SplitInfo
from core_mlp.serving import answers, litert, predict, saved_model
from core_mlp.training.model import MLP

NAMES = ("cat", "dog", "owl")
DARK, LIGHT, MIXED = (0.0, 3.0), (200.0, 255.0), (20.0, 230.0)


def network(shape=(28, 28, 1), border=DARK, drawing_side=20):
    return NetworkInfo(
        image_shape=shape,
        hidden_sizes=[],
        class_names=NAMES,
        border=border,
        drawing_side=drawing_side,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A SavedModel for small gray photographs of three classes."""
    info = network((4, 3, 1), drawing_side=None)
    folder = tmp_path_factory.mktemp("model") / "saved_model"
    classifier = saved_model.Classifier(
        MLP(info.image_shape, [3], seed=1), info.image_shape
    )
    saved_model.save_classifier(folder, classifier, info)
    return folder


@pytest.fixture
def ask(folder, tmp_path, monkeypatch, capfd):
    """Runs `core-mlp predict`; returns exit code, stdout and stderr."""

    def run(*arguments):
        command = ["core-mlp", "predict", "--model", folder, *arguments]
        monkeypatch.setattr(sys, "argv", list(map(str, command)))
        capfd.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code
        return code, *capfd.readouterr()

    monkeypatch.chdir(tmp_path)
    return run


def save(path, pixels, image_format=None):
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path, image_format)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_at_least_eight_of_ten_drawn_digits_are_recognized(digit_model, tmp_path, seed):
    rng = np.random.default_rng(seed)
    right = []
    for digit in range(10):
        picture = draw_digit(digit, rng, is_dark_on_light=digit % 2 == seed % 2)
        picture.save(tmp_path / "digit.png")
        file = tmp_path / "digit.png"
        image, _ = predict.prepare(file, digit_model.network)
        (answer,) = predict.classify(digit_model, image[np.newaxis], top=1)
        right.append(answer.keys() == {str(digit)})

    assert sum(right) >= 8, right


def test_the_picture_of_the_readme_is_a_seven(digit_model):
    picture = ROOT / "docs/images/seven.png"

    image, is_inverted = predict.prepare(picture, digit_model.network)

    (answer,) = predict.classify(digit_model, image[np.newaxis], top=3)
    assert is_inverted
    assert next(iter(answer)) == "7"
    assert answer["7"] == max(answer.values())


def test_a_drawing_fills_a_square_of_20_pixels_and_is_centered_by_mass(tmp_path):
    pixels = np.full([300, 500], 255)
    pixels[40:240, 20:60] = 0  # 200 high, 40 wide: 20 by 4.
    file = save(tmp_path / "stroke.png", pixels)

    image, is_inverted = predict.prepare(file, network())

    expected = np.zeros([28, 28, 1], bool)
    expected[4:24, 12:16] = True
    assert is_inverted
    np.testing.assert_array_equal(image > 128, expected)


def test_the_center_is_that_of_mass_not_of_the_strokes_outline(tmp_path):
    pixels = np.zeros([200, 200])
    pixels[50:70, 50:150] = 255  # A T: its mass is in the bar.
    pixels[70:150, 85:115] = 255
    file = save(tmp_path / "t.png", pixels)

    image, _ = predict.prepare(file, network())

    rows = np.flatnonzero(image.max(axis=(1, 2)))
    mass = image[..., 0].sum(axis=1)
    assert len(rows) == 20
    assert rows[0] == 7
    assert abs(np.average(np.arange(28), weights=mass) - 14) <= 0.5


def test_faint_strokes_on_noisy_paper_become_white_on_black(tmp_path):
    pixels = np.random.default_rng(0).integers(196, 204, [300, 300])
    pixels[100:200, 140:160] = 120
    file = save(tmp_path / "pencil.png", pixels)

    image, _ = predict.prepare(file, network())

    assert image.max() == 255
    assert np.count_nonzero(image > 128) == 20 * 4
    assert (image[..., :10, 0] == 0).all()


def test_a_heavy_end_does_not_push_strokes_out_of_the_frame(tmp_path):
    pixels = np.zeros([200, 200])
    pixels[50:100, 50:150] = 255
    pixels[100:150, 95:105] = 255
    file = save(tmp_path / "t.png", pixels)

    image, _ = predict.prepare(file, network())

    assert np.count_nonzero(image.max(axis=(1, 2)) > 128) == 20


def test_an_image_of_the_networks_own_size_is_used_as_it_is(tmp_path):
    pixels = np.zeros([28, 28])
    pixels[2:9, 3:5] = 77
    file = save(tmp_path / "image.png", pixels)

    image, is_inverted = predict.prepare(file, network())

    np.testing.assert_array_equal(image[..., 0], pixels)
    assert not is_inverted


def test_what_is_no_drawing_is_resized_as_a_whole(tmp_path):
    pixels = np.zeros([40, 30])
    pixels[:20] = 200
    file = save(tmp_path / "photo.png", pixels)

    image, _ = predict.prepare(file, network((4, 3, 1), MIXED, None), "no")

    assert image.shape == (4, 3, 1)
    assert (image[0] > 190).all()
    assert (image[-1] < 10).all()


@pytest.mark.parametrize(
    ("border", "picture", "invert", "expected"),
    [
        (DARK, 255, "auto", True),
        (DARK, 0, "auto", False),
        (LIGHT, 0, "auto", True),
        (LIGHT, 255, "auto", False),
        (MIXED, 255, "auto", False),
        (MIXED, 0, "auto", False),
        (None, 255, "auto", False),
        (DARK, 255, "no", False),
        (DARK, 0, "yes", True),
    ],
)
def test_light_and_dark_are_swapped_as_the_border_says(
    tmp_path, border, picture, invert, expected
):
    pixels = np.full([28, 28], picture)
    pixels[9:19, 9:19] = 255 - picture
    file = save(tmp_path / "picture.png", pixels)

    image, is_inverted = predict.prepare(file, network(border=border), invert)

    assert is_inverted is expected
    assert image[0, 0, 0] == (255 - picture if expected else picture)


def test_an_empty_canvas_is_refused(tmp_path):
    file = save(tmp_path / "empty.png", np.full([100, 100], 255))

    with pytest.raises(InputError, match=r"empty\.png': nothing is drawn on it$"):
        predict.prepare(file, network())


def test_the_border_is_that_of_the_training_images(digits_dir):
    train = digits_dir / "data/tfrecords/train"
    images = np.load(digits_dir / "data/raw/train/images.npy")[300:]

    info = SplitInfo.read_split(train)

    everything = [np.median(border_pixels(image)) for image in images]
    # Only approximately: from a sample.
    low, high = info.border
    assert low == pytest.approx(np.quantile(everything, 0.05), abs=5)
    assert high == pytest.approx(np.quantile(everything, 0.95), abs=5)
    assert NetworkInfo.of(info, {"hidden_sizes": [8]}).border == info.border


def test_a_folder_and_what_cannot_be_read(ask, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in/deep").mkdir(parents=True)
    (tmp_path / "in/folder.png").mkdir()
    for name in ("in/b.png", "in/a.jpg", "in/deep/c.PNG"):
        save(tmp_path / name, rng.integers(0, 256, [8, 6]))
    (tmp_path / "in/notes.txt").write_text("no image")
    (tmp_path / "broken.png").write_bytes((tmp_path / "in/b.png").read_bytes()[:40])

    code, out, err = ask("broken.png", "in", "missing.png", "--format", "csv")

    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert [row["file"] for row in rows] == ["in/a.jpg", "in/b.png", "in/deep/c.PNG"]
    errors = err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith("error: 'broken.png': not a readable image: ")
    assert errors[1].startswith("error: 'missing.png': not a readable image: ")


def test_one_bad_picture_does_not_stop_the_answers_about_others(ask, tmp_path):
    rng = np.random.default_rng(0)
    bad = tmp_path / "in"
    bad.mkdir()
    os.mkfifo(bad / "pipe.png")
    (bad / "link.png").symlink_to("nothing")
    (bad / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.fromarray(rng.random([8, 8], np.float32), "F").save(bad / "float.tif")
    save(bad / "wide.png", rng.integers(0, 256, [2, 3000]))
    save(bad / "no_extension.png", rng.integers(0, 256, [8, 6]))
    (bad / "no_extension.png").rename(bad / "no_extension")

    code, out, err = ask("in", "in/pipe.png", "--format", "csv")

    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert [row["file"] for row in rows] == ["in/no_extension", "in/wide.png"]
    errors = err.splitlines()
    assert [error.split("'")[1] for error in errors] == [
        "in/eps.png",
        "in/float.tif",
        "in/pipe.png",
    ]
    assert "expected PNG, JPEG, GIF, BMP, WebP or TIFF" in errors[0]
    assert "floats, which have no fixed range" in errors[1]
    assert "not a regular file" in errors[2]


def test_hidden_files_of_a_folder_are_left_out_as_by_fetch(ask, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("in/a.png", "in/._a.png", "in/.ipynb_checkpoints/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / name, rng.integers(0, 256, [8, 6]))

    code, out, err = ask("in", "--format", "csv")

    assert (code, err) == (0, "")
    assert [row["file"] for row in csv.DictReader(io.StringIO(out))] == ["in/a.png"]


@pytest.mark.parametrize("output", ["table", "json", "csv"])
def test_a_file_name_that_is_not_utf_8_has_an_answer(ask, tmp_path, output):
    rng = np.random.default_rng(0)
    names = (b"\xff\r\x1b[31m.png", "日本.png".encode())
    for name in names:
        save(tmp_path / "a.png", rng.integers(0, 256, [8, 6]))
        (tmp_path / "a.png").rename(tmp_path / os.fsdecode(name))

    code, out, err = ask(*map(os.fsdecode, names), "--format", output)

    assert (code, err) == (0, "")
    escaped = r"\udcff\r\x1b[31m.png"
    if output == "json":
        assert [row["file"] for row in json.loads(out)] == [escaped, "日本.png"]
    else:
        assert escaped in out
        assert "日本.png" in out


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), OSError(5)])
def test_whatever_a_picture_causes_the_others_are_answered(
    ask, tmp_path, monkeypatch, error
):
    for name in ("a.png", "b.png", "c.png"):
        save(tmp_path / name, np.zeros([9, 9]))
    resize_image = predict.resize_image
    calls = []

    def fail_once(image, size):
        calls.append(size)
        if len(calls) == 2:
            raise error
        return resize_image(image, size)

    monkeypatch.setattr(predict, "resize_image", fail_once)

    code, out, err = ask("a.png", "b.png", "c.png", "--format", "csv")

    assert code == 1
    rows = csv.DictReader(io.StringIO(out))
    assert [row["file"] for row in rows] == ["a.png", "c.png"]
    assert err.startswith("error: 'b.png': ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("name", ["gone.png", "/dev/zero", "pipe", "socket"])
def test_what_is_no_file_is_one_line_and_no_wait(ask, tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")  # Relative: a socket's path must be short.
        save(tmp_path / "a.png", np.zeros([9, 9]))

        code, out, err = ask(name, "a.png", "--format", "csv")

    assert code == 1
    assert len(out.splitlines()) == 2
    assert err.startswith(f"error: {name!r}: not a readable image: ")


def test_a_folder_that_cannot_be_listed_is_a_line(ask, tmp_path, monkeypatch):
    (tmp_path / "in/closed").mkdir(parents=True)
    save(tmp_path / "in/a.png", np.zeros([9, 9]))
    scandir = os.scandir

    def fail(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)

    code, out, err = ask("in", "--format", "csv")

    assert code == 1
    assert len(out.splitlines()) == 2
    assert err == "error: 'in/closed': Permission denied\n"


def test_csv_has_one_line_per_picture_whatever_its_name(ask, tmp_path):
    for name in ("a\rb.png", "a\nb.png", 'a"b,.png', "a\u2028b.png"):
        save(tmp_path / name, np.zeros([9, 9]))

    code, out, _ = ask(tmp_path, "--top", 1, "--format", "csv")

    assert code == 0
    names = [line.removeprefix(f"{tmp_path}/") for line in out.split("\n")[1:-1]]
    assert [name.split(",False")[0] for name in names] == [
        r"a\nb.png",
        r"a\rb.png",
        f'"{tmp_path}/a""b,.png"',
        r"a\u2028b.png",
    ]


def test_show_draws_odd_names(ask, tmp_path):
    names = (b"\xff\x1b.png", b"$\\x$_{.png", "日本\u202e.png".encode())
    for name in map(os.fsdecode, names):
        save(tmp_path / "one", np.zeros([9, 9]), "PNG").rename(tmp_path / name)

    code, _, err = ask(*map(os.fsdecode, names), "--show", "seen.png")

    assert (code, err) == (0, "Wrote seen.png\n")
    assert (tmp_path / "seen.png").exists()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("output", ["table", "csv", "json"])
def test_a_terminal_of_any_encoding_has_answers(
    ask, tmp_path, monkeypatch, encoding, output
):
    save(tmp_path / "日本.png", np.zeros([9, 9]))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))

    code, _, _ = ask("日本.png", "--format", output)

    sys.stdout.flush()
    assert code == 0
    assert rb"\u65e5\u672c.png" in written.getvalue()


def test_an_empty_folder_is_an_error(ask, tmp_path):
    (tmp_path / "empty").mkdir()

    code, out, err = ask("empty")

    assert (code, out) == (1, "")
    assert err == (
        "error: 'empty': no pictures (PNG, JPEG, GIF, BMP, WebP or TIFF) in this "
        "folder or below\n"
    )


def test_the_formats_agree(ask, folder, tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, [3, 4, 3, 1]).astype(np.uint8)
    images[:, 0] = images[:, -1] = images[:, :, 0] = 9  # A dark border.
    for number, image in enumerate(images):
        save(tmp_path / f"{number}.png", image[..., 0])
    files = [f"{number}.png" for number in range(3)]

    table, as_json, as_csv = (
        ask(*files, "--top", 2, "--format", name)[1]
        for name in ("table", "json", "csv")
    )

    classify = saved_model.load_classifier(folder)
    expected, probabilities = answers.predict(classify, images)
    found = json.loads(as_json)
    rows = list(csv.DictReader(io.StringIO(as_csv)))
    header, *lines = table.splitlines()
    assert header.split() == list(rows[0]) == list(found[0])
    for number, answer in enumerate(found):
        assert answer["file"] == files[number]
        assert answer["inverted"] is False
        assert answer["class_1"] == NAMES[expected[number]]
        assert answer["probability_1"] == pytest.approx(
            probabilities[number].max(), abs=1e-6
        )
        assert answer["class_2"] != answer["class_1"]
        values = [str(value) for value in answer.values()]
        assert list(rows[number].values()) == lines[number].split() == values
    assert len(found) == len(rows) == len(lines) == 3


def test_what_was_inverted_is_said(ask, tmp_path):
    save(tmp_path / "light.png", np.full([9, 9], 255))
    save(tmp_path / "dark.png", np.zeros([9, 9]))

    _, table, _ = ask("light.png", "dark.png")

    _, light, dark = table.splitlines()
    assert light.split()[:2] == ["light.png", "True"]
    assert dark.split()[:2] == ["dark.png", "False"]


def test_show_draws_what_the_network_saw(ask, tmp_path):
    save(tmp_path / "light.png", np.full([9, 9], 255))

    code, _, _ = ask("light.png", "--show", "seen.png")

    assert code == 0
    drawn = np.asarray(Image.open(tmp_path / "seen.png").convert("L"))
    assert (drawn[drawn.shape[0] // 2 :] == 0).sum() > 1000  # The picture, inverted.


@pytest.mark.parametrize(
    "arguments", [("--show", "seen.txt"), ("--show", "nowhere/seen.png"), ("--top", 0)]
)
def test_a_bad_option_is_refused_before_the_work(ask, tmp_path, arguments):
    save(tmp_path / "a.png", np.zeros([9, 9]))

    code, out, _ = ask("a.png", *arguments)

    assert str(code).startswith(f"error: {arguments[0]} {arguments[1]}: expected ")
    assert out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.fixture(scope="module")
def quantized(folder, tmp_path_factory):
    """The same model for LiteRT."""
    target = tmp_path_factory.mktemp("litert") / "quantized"
    litert.convert(folder, target, quantize=True)
    return target


def test_a_litert_model_answers_as_its_saved_model(ask, quantized, tmp_path):
    rng = np.random.default_rng(2)
    for number in range(20):
        pixels = rng.integers(0, 256, [4, 3])
        save(tmp_path / f"{number:02}.png", pixels.astype(np.uint8))
    arguments = (tmp_path, "--format", "json", "--top", 3)

    expected = json.loads(ask(*arguments)[1])
    code, out, err = ask(*arguments, "--model", quantized)

    assert (code, err) == (0, "")
    for answer, of_saved_model in zip(json.loads(out), expected, strict=True):
        assert answer["file"] == of_saved_model["file"]
        assert answer["class_1"] == of_saved_model["class_1"]
        assert answer["probability_1"] == pytest.approx(
            of_saved_model["probability_1"], abs=0.01
        )


def test_a_litert_model_answers_without_tensorflow(quantized, tmp_path):
    save(tmp_path / "a.png", np.zeros([9, 9]))
    code = (
        "import sys; from pathlib import Path; from core_mlp.serving import predict; "
        f"model = predict.load_model(Path({str(quantized)!r})); "
        "assert predict.predict_files(model, [Path('a.png')]); "
        "assert 'tensorflow' not in sys.modules"
    )

    assert "a.png" in run("python", "-c", code, cwd=tmp_path)


def test_a_corrupt_litert_model_is_one_line(ask, quantized, tmp_path):
    shutil.copytree(quantized, tmp_path / "litert")
    (tmp_path / "litert/model.tflite").write_bytes(b"not a model")

    message = ask("a.png", "--model", "litert")[0]

    assert message.startswith("error: litert/model.tflite: cannot be loaded: ")
    assert "\n" not in message


@pytest.mark.usefixtures("real_commands")
def test_a_model_copied_elsewhere_answers_without_tensorflows_messages(
    folder, tmp_path
):
    folder = folder.rename(tmp_path / "elsewhere")
    save(tmp_path / "a.png", np.zeros([9, 9]))

    result = try_to_run(
        "core-mlp", "predict", "a.png", "--model", "elsewhere", cwd=tmp_path
    )

    assert result.returncode == 0
    header, answer = result.stdout.splitlines()
    assert header.split()[0] == "file"
    assert answer.split()[0] == "a.png"


def test_a_missing_model_is_one_line(ask):
    assert ask("a.png", "--model", "nowhere")[0] == (
        "error: nowhere: no such model; `dvc repro` makes one"
    )
