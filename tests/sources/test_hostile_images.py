"""Files made to keep a reader busy are refused quickly; honest files are read."""

import functools
import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from core_mlp.pipeline.errors import InputError
from core_mlp.sources import image_files
from core_mlp.sources.image_files import read_image

SIDE = 9_000
ORIENTATION = 274


def jpeg(size=(8, 8), num_scans=0, **options):
    """Returns a JPEG; with `num_scans`, the last scan is repeated."""
    file = io.BytesIO()
    Image.new("L", size, 200).save(file, "JPEG", progressive=num_scans > 0, **options)
    content = file.getvalue()
    last_scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + last_scan * num_scans + content[-2:]


def tiff(tags, mark=b"II*\0"):
    """Returns a TIFF of tags: number, type, count, and the value or its bytes."""
    start = 8 + 2 + 12 * len(tags) + 4
    entries = values = b""
    for number, kind, count, value in sorted(tags):
        if isinstance(value, bytes):
            values, value = values + value, start + len(values)
        entries += struct.pack("<HHII", number, kind, count, value)
    return mark + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values


def gray_tiff(side, *tags, compression=1):
    """Returns a gray TIFF of one pixel's bytes, with more tags."""
    sizes = [(256, 4, 1, side), (257, 4, 1, side)]
    kinds = [(258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1), (277, 3, 1, 1)]
    return tiff([*sizes, *kinds, *tags])


STRIP = [(273, 4, 1, 8), (278, 4, 1, 1), (279, 4, 1, 1)]
TOO_MANY = image_files.MAX_TAG_VALUES + 1


def png(*chunks):
    """Returns a PNG of one pixel, with more chunks."""

    def chunk(name, data):
        crc = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixel = (b"IDAT", zlib.compress(b"\0\x07"))
    parts = [(b"IHDR", header), *chunks, pixel, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@functools.cache
def hostile_files():
    """Returns files, and why each is refused, by name."""
    scans = jpeg((SIDE, SIDE), num_scans=60)
    same_bytes = [(40_000 + n, 7, 50_000, 8) for n in range(300)]
    tile_side = struct.pack("<I", len(scans))
    parts = jpeg()[:2] + b"\xff\xfe\0\2" * 20_000 + jpeg()[2:]
    many = gray_tiff(1, *STRIP, (ORIENTATION, 3, TOO_MANY, b"\1\0" * TOO_MANY))
    strips = struct.pack("<I", 8) * TOO_MANY
    return {
        "scans": (scans, "scans of 81,000,000 pixels, too many"),
        "parts": (parts, "a JPEG of more than 10,000 parts"),
        "values": (many, "its tags have too many values"),
        "same bytes": (gray_tiff(1, *STRIP, *same_bytes), "tags have too many values"),
        "strips": (
            gray_tiff(500, (273, 4, TOO_MANY, strips), (278, 4, 1, 1)),
            "its tags have too many values",
        ),
        "large tiles": (
            gray_tiff(
                4,
                (322, 4, 1, 32_768),
                (323, 4, 1, 32_768),
                (324, 4, 1, 8),
                (325, 4, 1, 9),
                compression=8,
            ),
            "tiles of 1,073,741,824 pixels, more than 89,478,485",
        ),
        "one JPEG for all strips": (
            gray_tiff(
                512,
                (273, 4, 2, struct.pack("<2I", 8, 8)),
                (278, 4, 1, 256),
                (279, 4, 2, tile_side * 2),
                compression=7,
            ),
            "strips or tiles have more bytes than the file",
        ),
        "compressed text": (
            png((b"zTXt", b"a\0\0" + zlib.compress(bytes(2**24)))),
            "Decompressed data too large",
        ),
    }


@pytest.mark.parametrize("name", hostile_files())
def test_a_hostile_file_is_refused_soon(name):
    content, problem = hostile_files()[name]
    start = time.process_time()

    with pytest.raises(InputError, match=problem):
        read_image(io.BytesIO(content))

    assert time.process_time() - start < 1


def test_a_hostile_exif_is_ignored_and_the_picture_is_read():
    ratios = struct.pack("<II", 6, 1) * TOO_MANY
    exif = tiff([(ORIENTATION, 5, TOO_MANY, ratios)])
    start = time.process_time()

    read = read_image(io.BytesIO(png((b"eXIf", exif))))

    assert np.asarray(read).tolist() == [[7]]
    assert time.process_time() - start < 1


def test_a_hostile_exif_of_a_jpeg_is_ignored_and_the_picture_is_read():
    """All its tags refer to the same bytes, which Pillow copies for each tag."""
    tags = [(40_000 + n, 7, 30_000, 8) for n in range(2_000)]
    exif = b"Exif\0\0" + tiff([(ORIENTATION, 3, 1, 6), *tags])

    read = read_image(io.BytesIO(jpeg((16, 8), exif=exif)))

    assert read.size == (16, 8)  # Not turned.


def test_a_film_behind_a_telephones_picture_is_no_scan(monkeypatch):
    monkeypatch.setattr(image_files, "MAX_SCANNED_PIXELS", 5 * 64)
    film = b"\xff\xda" * 100

    assert np.asarray(read_image(io.BytesIO(jpeg() + film))).mean() == 200


def test_scans_of_an_exifs_thumbnail_do_not_count(monkeypatch):
    monkeypatch.setattr(image_files, "MAX_SCANNED_PIXELS", 5 * 64)
    thumbnail = b"Exif\0\0" + tiff([(ORIENTATION, 3, 1, 1)]) + jpeg() * 10

    read_image(io.BytesIO(jpeg(exif=thumbnail)))


def test_each_tile_of_a_tiff_may_have_its_scan(monkeypatch):
    """As in those of microscopes and maps: many small JPEGs make one picture."""
    monkeypatch.setattr(image_files, "MAX_SCANNED_PIXELS", 2 * 64 * 64)
    file = io.BytesIO()
    Image.new("L", (64, 64), 200).save(file, "TIFF", compression="jpeg", strip_size=512)
    content = file.getvalue()
    assert content.count(b"\xff\xda") == 8

    assert (np.asarray(read_image(io.BytesIO(content))) == 200).all()


def test_an_ordinary_progressive_picture_is_read():
    content = jpeg((64, 64), num_scans=10)

    assert np.asarray(read_image(io.BytesIO(content))).mean() == 200


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(2 * 2**30)  # Takes no space on the disk.

    with pytest.raises(InputError, match=r"2,147,483,648 bytes, more than 300,000,000"):
        read_image(path)


def test_a_kind_of_a_known_format_that_is_not_read_is_told_from_other_formats():
    """A TIFF of 64 bits."""
    content = gray_tiff(1, *STRIP).replace(
        struct.pack("<HHII", 258, 3, 1, 8), struct.pack("<HHII", 258, 3, 1, 64)
    )

    with pytest.raises(InputError, match="damaged, or of an unsupported kind"):
        read_image(io.BytesIO(content))


def test_too_little_memory_is_said(monkeypatch):
    def fail(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", fail)

    with pytest.raises(InputError, match="not enough memory to read it"):
        read_image(io.BytesIO(jpeg()), 3)
