"""Every format, mode, bit depth and orientation that is read, with the right pixels."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from core_mlp.pipeline.errors import InputError
from core_mlp.sources import image_files
from core_mlp.sources.image_files import is_image, read_image, resize_image

# Distinct corners distinguish every orientation from the others.
GRAY = np.array([[0, 40, 80], [120, 160, 255]], np.uint8).repeat(8, 0).repeat(8, 1)
RGB = np.stack([GRAY, 255 - GRAY, GRAY // 2], axis=2)
LOSSLESS = {
    "PNG": {},
    "TIFF": {},
    "BMP": {},
    "WEBP": {"lossless": True},
}
# How to turn an upright image so that its EXIF orientation turns it back.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a.swapaxes(0, 1)[::-1, ::-1],
    8: lambda a: np.rot90(a, -1),
}


def saved(image, image_format, **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    assert is_image(file.getvalue()[: image_files.HEAD_BYTES])
    file.seek(0)
    return file


def pixels(file):
    return np.asarray(read_image(file))


def png(width, height, depth, color_type, rows, *chunks):
    """Writes a PNG of any bit depth, as Pillow cannot."""

    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    data = b"".join(b"\0" + row for row in rows)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))


def tiff(values, bits, photometric=1, sample_format=1, byte_order="<"):
    """Writes an uncompressed gray TIFF of one row."""
    mark = b"II*\0" if byte_order == "<" else b"MM\0*"
    tags = [
        (256, 4, len(values[0])),
        (257, 4, 1),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, photometric),
        (273, 4, 8 + 2 + 10 * 12 + 4),
        (277, 3, 1),
        (278, 4, 1),
        (279, 4, len(values[1])),
        (339, 3, sample_format),
    ]
    entries = b"".join(
        struct.pack(byte_order + "HHI", tag, kind, 1)
        + struct.pack(
            byte_order + ("HH" if kind == 3 else "I"), *([value, 0][: 5 - kind])
        )
        for tag, kind, value in tags
    )
    head = mark + struct.pack(byte_order + "IH", 8, len(tags))
    return io.BytesIO(head + entries + bytes(4) + values[1])


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_every_orientation_is_applied(image_format, mode, orientation):
    upright = GRAY if mode == "L" else RGB
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"quality": 100} if image_format == "JPEG" else {}
    options = LOSSLESS.get(image_format, options)

    found = pixels(saved(stored, image_format, exif=exif, **options))

    if image_format == "WEBP" and mode == "L":  # WebP has no gray mode.
        upright = np.stack([upright] * 3, axis=2)
    assert found.shape == upright.shape
    # An edge in a JPEG rings.
    tolerance = 16 if image_format == "JPEG" else 0
    centers = np.s_[4::8, 4::8]
    assert np.abs(found[centers].astype(int) - upright[centers]).max() <= tolerance


@pytest.mark.parametrize("image_format", LOSSLESS)
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_every_mode_has_the_right_pixels(image_format, mode):
    image = Image.fromarray(RGB)
    if mode in ("1", "L", "P"):
        image = Image.fromarray(GRAY).convert(mode, dither=Image.Dither.NONE)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(255 * (GRAY > 100).astype(np.uint8)))
    expected = np.asarray(image.convert("L" if mode in ("1", "L") else "RGB"))
    if mode == "RGBA" and image_format != "BMP":  # Pillow's BMP has no transparency.
        expected = np.where(GRAY[..., np.newaxis] > 100, RGB, 255)
    if image_format == "WEBP" and expected.ndim == 2:
        expected = np.stack([expected] * 3, axis=2)

    found = pixels(saved(image, image_format, **LOSSLESS[image_format]))

    if image_format == "BMP" and mode == "P":  # A palette of grays is gray.
        found = np.stack([found] * 3, axis=2) if found.ndim == 2 else found
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "LA", "PA", "RGBX"])
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_a_tiff_of_any_color_space_is_gray_or_rgb(mode, channels):
    blank = Image.new("RGB", (4, 4), "white")
    if mode == "LAB":
        profiles = [ImageCms.createProfile(name) for name in ("sRGB", "LAB")]
        image = ImageCms.profileToProfile(blank, *profiles, outputMode="LAB")
    else:
        image = blank.convert("RGBA" if mode == "PA" else mode)
        image = image.quantize() if mode == "PA" else image

    read = read_image(saved(image, "TIFF"), channels)

    assert (
        read.mode == {None: "L" if mode == "LA" else "RGB", 1: "L", 3: "RGB"}[channels]
    )
    assert np.asarray(read).min() >= 254


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_gray_png_of_any_depth_is_spread_over_8_bits(depth):
    top = 2**depth - 1
    values = [0, top, top // 2, top]
    bits = "".join(f"{value:0{depth}b}" for value in values).ljust(8, "0")
    row = int(bits, 2).to_bytes(len(bits) // 8 or 1, "big")

    found = pixels(png(4, 1, depth, 0, [row]))

    middle = top // 2 * 255 // top if depth < 8 else top // 2 >> (depth - 8)
    assert found.tolist() == [[0, 255, middle, 255]]


@pytest.mark.parametrize("depth", [2, 4, 8, 16])
def test_the_transparent_gray_of_a_png_is_white(depth):
    values = [1, 2, 1, 2]
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = int(bits, 2).to_bytes(len(bits) // 8, "big")

    found = pixels(png(4, 1, depth, 0, [row], (b"tRNS", struct.pack(">H", 1))))

    two = {2: 170, 4: 34, 8: 2, 16: 0}[depth]
    assert found.tolist() == [[255, two, 255, two]]


def test_the_transparent_color_of_a_png_with_16_bits_is_white():
    row = struct.pack(">6H", 0x1234, 0x2345, 0x3456, 0xFFFF, 0, 0)
    color = struct.pack(">3H", 0x1234, 0x2345, 0x3456)

    found = pixels(png(2, 1, 16, 2, [row], (b"tRNS", color)))

    assert found.tolist() == [[[255, 255, 255], [255, 0, 0]]]


@pytest.mark.parametrize(("byte_order", "photometric"), [("<", 0), ("<", 1), (">", 1)])
def test_a_tiff_of_16_bits_keeps_its_top_8_bits(byte_order, photometric):
    values = [0, 0x1234, 0xFFFF]
    file = tiff(
        (values, struct.pack(f"{byte_order}3H", *values)),
        16,
        photometric=photometric,
        byte_order=byte_order,
    )

    expected = [0, 0x12, 0xFF] if photometric else [255, 255 - 0x12, 0]
    assert pixels(file).tolist() == [expected]


def test_a_tiff_of_12_bits_keeps_its_top_8_bits():
    packed = 0xFFF0AB.to_bytes(3, "big")  # 0xFFF and 0x0AB

    assert pixels(tiff(([0xFFF, 0x0AB], packed), 12)).tolist() == [[0xFF, 0x0A]]


@pytest.mark.parametrize(
    ("code", "bits", "sample_format"),
    [("i", 32, 2), ("I", 32, 1), ("h", 16, 2), ("f", 32, 3)],
)
def test_numbers_without_a_fixed_range_are_refused_by_name(code, bits, sample_format):
    values = [1, 2, 3]
    data = struct.pack(f"<3{code}", *values)

    with pytest.raises(
        InputError, match=r"(integers|floats), which have no fixed range"
    ):
        read_image(tiff((values, data), bits, sample_format=sample_format))


@pytest.mark.parametrize("image_format", ["PPM", "EPS", "PDF", "TGA", "ICO", "PCX"])
def test_other_formats_are_refused_and_what_is_allowed_is_named(image_format):
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, image_format)
    assert not is_image(file.getvalue()[: image_files.HEAD_BYTES])
    file.seek(0)

    with pytest.raises(InputError, match="expected PNG, JPEG, GIF, BMP, WebP or TIFF"):
        read_image(file)


def test_no_other_program_is_started(monkeypatch):
    def fail(*_args, **_kwargs):
        raise AssertionError("started a program")

    monkeypatch.setattr("subprocess.check_call", fail)
    monkeypatch.setattr("subprocess.Popen", fail)
    postscript = io.BytesIO(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    )

    with pytest.raises(InputError, match="not a readable image"):
        read_image(postscript)


def test_a_telephones_exif_is_not_written_again():
    """Make, a text, is stored as a RATIONAL: Pillow can read it, but not write it."""
    make = struct.pack("<HHII", ExifTags.Base.Make, 5, 1, 38)
    orientation = struct.pack("<HHIHH", ExifTags.Base.Orientation, 3, 1, 6, 0)
    ratio = struct.pack("<II", 1, 2)
    tags = b"II*\0" + struct.pack("<IH", 8, 2) + make + orientation + bytes(4) + ratio

    file = saved(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0" + tags)

    assert read_image(file).size == (16, 24)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_is_none(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation

    assert read_image(saved(Image.fromarray(RGB), "PNG", exif=exif)).size == (24, 16)


def test_a_corrupt_exif_does_not_refuse_the_picture():
    file = saved(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")

    np.testing.assert_array_equal(pixels(file), RGB)


@pytest.mark.parametrize("size", [(3000, 20), (20, 3000), (1, 5000), (5000, 1), (1, 1)])
@pytest.mark.parametrize("target", [(32, 32), (1, 1), (1, 100), (100, 1)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_any_aspect_ratio_fits(size, target, mode):
    image = Image.new(mode, size, "white")

    resized = resize_image(image, target)

    assert resized.size == target[::-1]
    assert np.asarray(resized).min() == 255


def test_a_progressive_jpeg_of_thousands_of_scans_is_refused_at_once():
    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    start = content.rindex(b"\xff\xda")
    scans = content[start:-2] * 300

    with pytest.raises(InputError, match=r"scans of 16,000,000 pixels, too many"):
        read_image(io.BytesIO(content[:-2] + scans + content[-2:]))


def test_a_file_of_many_tiny_parts_is_given_up_in_time(monkeypatch):
    monkeypatch.setattr(image_files, "MAX_SECONDS", 0.05)
    parts = [(b"teSt", b"")] * 200_000

    with pytest.raises(InputError, match=r"takes more than 0.05 s to decode"):
        read_image(png(4, 1, 8, 0, [bytes(4)], *parts))


def test_a_run_length_encoded_bmp_cannot_fill_the_memory():
    width = 80_000_000
    header = struct.pack("<IiiHHIIiiII", 40, width, 1, 1, 8, 1, 4, 0, 0, 256, 256)
    start = 14 + len(header) + 1024
    head = b"BM" + struct.pack("<IHHI", start + 4, 0, 0, start)

    with pytest.raises(InputError, match="a width of 80,000,000"):
        read_image(io.BytesIO(head + header + bytes(1024) + b"\0\2\xff\xff"))


def test_a_warning_of_pillows_is_no_error_and_changes_no_filter():
    before = list(warnings.filters)

    with pytest.raises(InputError, match="exceeds limit of 89,478,485 pixels"):
        read_image(png(10_000, 10_000, 8, 0, [b""]))

    assert warnings.filters == before
