"""Image files of any kind become L or RGB, or an error of one line with the path."""

import io
import struct
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core_mlp.data.borders import border_pixels
from core_mlp.pipeline.errors import InputError
from core_mlp.sources.image_files import read_image, resize_image

RED = (255, 0, 0)


def left_and_right(mode, left, right):
    """Makes an image of 4 x 2 pixels (width x height) with two halves."""
    image = Image.new(mode, (4, 2), left)
    image.paste(right, (2, 0, 4, 2))
    return image


def pixels(image):
    return np.asarray(image).tolist()


def test_gray_and_rgb_files_keep_their_pixels(tmp_path):
    for mode, left, right in (("L", 7, 200), ("RGB", RED, (1, 2, 3))):
        image = left_and_right(mode, left, right)
        for extension in ("png", "bmp"):
            path = tmp_path / f"{mode}.{extension}"
            image.save(path)
            read = read_image(path)
            assert read.mode == mode
            assert pixels(read) == pixels(image)
            assert pixels(read_image(str(path))) == pixels(image)
            assert pixels(read_image(io.BytesIO(path.read_bytes()))) == pixels(image)


def test_channels_convert(tmp_path):
    left_and_right("L", 7, 200).save(tmp_path / "gray.png")
    left_and_right("RGB", RED, (9, 9, 9)).save(tmp_path / "rgb.png")

    assert (
        pixels(read_image(tmp_path / "gray.png", 3))[0]
        == [[7] * 3] * 2 + [[200] * 3] * 2
    )
    # ITU-R 601-2: 0.299 of red.
    assert pixels(read_image(tmp_path / "rgb.png", 1))[0] == [76, 76, 9, 9]


def test_16_bits_become_8(tmp_path):
    values = np.array([[0, 255, 256, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")

    assert pixels(read_image(tmp_path / "deep.png")) == [[0, 0, 1, 255]]


def test_the_orientation_is_applied(tmp_path):
    image = left_and_right("RGB", RED, (0, 0, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # Rotate by 90 degrees clockwise.
    image.save(tmp_path / "photo.png", exif=exif)

    read = read_image(tmp_path / "photo.png")

    assert read.size == (2, 4)
    assert pixels(read) == pixels(image.transpose(Image.Transpose.ROTATE_270))


def test_what_is_transparent_becomes_white(tmp_path):
    palette = left_and_right("P", 0, 1)
    palette.putpalette([0, 255, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png", transparency=0)
    left_and_right("RGBA", (*RED, 0), (*RED, 255)).save(tmp_path / "rgba.png")
    left_and_right("LA", (3, 0), (3, 255)).save(tmp_path / "la.png")

    white = [255] * 3
    row = pixels(read_image(tmp_path / "palette.png"))[0]
    assert row == [white, white, [10, 20, 30], [10, 20, 30]]
    row = pixels(read_image(tmp_path / "rgba.png"))[0]
    assert row == [white, white, [*RED], [*RED]]
    assert pixels(read_image(tmp_path / "la.png"))[0] == [255, 255, 3, 3]


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "print.jpg")

    read = read_image(tmp_path / "print.jpg")

    assert read.mode == "RGB"
    np.testing.assert_allclose(np.asarray(read)[4, 4], RED, atol=3)


def test_an_animation_is_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (3, 3), color) for color in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])

    assert pixels(read_image(tmp_path / "two.gif"))[0][0] == [*RED]


def png_header(width, height):
    """Makes a PNG that states a size but has almost no pixels."""

    def chunk(name, data):
        crc = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0"))
        + chunk(b"IEND", b"")
    )


def bad_files():
    """Returns files that are not images, by name."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, [32, 32, 3], np.uint8)
    Image.fromarray(noise).save(buffer, "jpeg")
    return {
        "truncated.jpg": buffer.getvalue()[:-200],
        "empty.png": b"",
        "text.png": b"This is text.",
        "large.png": png_header(12_000, 10_000),
        "huge.png": png_header(60_000, 60_000),
        "line\nbreak ü.png": b"?",
    }


@pytest.mark.parametrize("name", bad_files())
def test_a_bad_file_is_one_line_with_its_path(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(bad_files()[name])

    tracemalloc.start()
    # As outside pytest, where a warning is not an error.
    with warnings.catch_warnings(action="ignore"), pytest.raises(InputError) as error:
        read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    message = str(error.value)
    assert message.startswith(f"{str(path)!r}: not a readable image: ")
    assert "\n" not in message
    assert ("exceeds limit" in message) == (name in ("large.png", "huge.png"))
    assert peak < 5e6


def test_a_file_without_a_path_is_refused_too():
    with pytest.raises(InputError, match=r"^not a readable image: "):
        read_image(io.BytesIO(b"?"))


def test_resizing_keeps_the_aspect_ratio_and_fills_with_the_border():
    image = Image.new("RGB", (20, 10), (10, 20, 30))
    image.paste(RED, (5, 3, 15, 7))

    resized = np.asarray(resize_image(image, [40, 40]))

    assert resized.shape == (40, 40, 3)
    assert (resized[:9] == (10, 20, 30)).all()
    assert (resized[31:] == (10, 20, 30)).all()
    assert (resized[18:22, 14:26] == RED).all()


def test_resizing_is_antialiased():
    checkers = (np.indices([16, 16]).sum(axis=0) % 2 * 255).astype(np.uint8)

    resized = np.asarray(resize_image(Image.fromarray(checkers), [4, 4]))

    assert abs(resized.astype(int) - 127).max() < 20


def test_an_image_of_the_size_is_left_alone():
    image = left_and_right("L", 7, 200)

    assert pixels(resize_image(image, [2, 4])) == pixels(image)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (2, 2), (4, 3)])
def test_the_border_has_each_outermost_pixel(shape):
    image = np.arange(np.prod(shape)).reshape(*shape, 1)
    inner = image[1:-1, 1:-1].ravel()

    expected = sorted(set(image.ravel()) - set(inner))
    assert sorted(set(border_pixels(image).ravel())) == expected


def test_a_path_is_a_path_however_it_is_given(tmp_path):
    for path in (tmp_path / "none.png", str(tmp_path / "none.png")):
        with pytest.raises(InputError, match=f"^{str(Path(path))!r}: "):
            read_image(path)
