"""Reads and resizes image files, the same way for training and for prediction."""

import io
import os
import re
import stat
import struct
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from core_mlp.data.borders import border_pixels
from core_mlp.pipeline.errors import InputError, first_line

# Formats that fetch, predict and demo read. Pillow knows more, and would start
# Ghostscript for some of them.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
FORMAT_NAMES = "PNG, JPEG, GIF, BMP, WebP or TIFF"
EXTENSIONS = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
# Bytes at the beginning of a file that identify its format.
HEAD_BYTES = 16
# A decoded picture takes at most four bytes per pixel.
MAX_PIXELS = 89_478_485
MAX_FILE_BYTES = 300_000_000
MAX_SECONDS = 10.0
# A file of up to this size has too few parts to take MAX_SECONDS.
MAX_UNTIMED_BYTES = 2**18
# A decoder goes over all pixels of a progressive JPEG in each of its scans; cameras and
# programs write up to about twelve.
MAX_SCANNED_PIXELS = 3_000_000_000
MAX_JPEG_PARTS = 10_000
# Width of a run-length encoded BMP, in which a code of four bytes skips up to 255 rows.
MAX_RLE_WIDTH = 65_536
# Values of one tag, such as a tag of the EXIF. Pillow creates a Python object for each
# value. A tag also lists the tiles; each takes 22 us if compressed by LZMA.
MAX_TAG_VALUES = 250_000
# LZMA decodes 10 to 20 MB of noise a second.
MAX_LZMA_BYTES = 100_000_000

GRAY_MODES = {"1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N"}
# How to turn an image upright, by its EXIF orientation; 1 is upright.
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
JPEG_MARKER_BYTES = 4  # Including the length of the part.
JPEG_START, JPEG_EXIF_START = b"\xff\xd8\xff", b"Exif\0\0"
# Not markers: 255 and 0, which stand for 255 itself; 255 and 255; restarts.
JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
JPEG_TEM, JPEG_SOI, JPEG_EOI, JPEG_SOS, JPEG_APP1 = 0x01, 0xD8, 0xD9, 0xDA, 0xE1

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BIG_TIFF_STARTS = TIFF_STARTS[2:]
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, TIFF_WHITE_IS_ZERO = 258, 262, 0
TIFF_ROWS_PER_STRIP, TIFF_STRIP_BYTES = 278, 279
TIFF_TILE_WIDTH, TIFF_TILE_HEIGHT, TIFF_TILE_BYTES = 322, 323, 325
# Bytes per value, by the type of a tag.
TIFF_VALUE_BYTES = {
    **dict.fromkeys((1, 2, 6, 7), 1),
    **dict.fromkeys((3, 8), 2),
    **dict.fromkeys((4, 9, 11, 13), 4),
    **dict.fromkeys((5, 10, 12, 16, 17, 18), 8),
}
MAX_TAGS = 65_535

# Pillow's warnings, such as about an odd EXIF, do not concern the picture and are
# silenced. Python silences them for all threads at once, so only one thread may read at
# a time. The lock also limits the memory of a server.
_ONE_AT_A_TIME = threading.Lock()


def is_image(head: bytes) -> bool:
    """Tells whether a file that begins with `head` is an image of one of FORMATS.

    Args:
      head: The first HEAD_BYTES bytes of the file, or all of them.
    """
    return (
        head.startswith((b"\x89PNG\r\n\x1a\n", JPEG_START, b"GIF87a", b"GIF89a"))
        or head.startswith(TIFF_STARTS)
        # "BM" alone begins many texts; four bytes of a BMP are reserved.
        or (head.startswith(b"BM") and head[6:10] == bytes(4))
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
    )


def is_image_file(path: Path | str) -> bool:
    """Tells whether a file is an image by its content, or claims to be by its name.

    Raises:
      OSError: If the file cannot be read.
    """
    if str(path).lower().endswith(EXTENSIONS):
        return True
    with open(path, "rb", buffering=0) as file:
        return is_image(file.read(HEAD_BYTES))


def read_image(file: Path | str | BinaryIO, channels: int | None = None) -> Image.Image:
    """Reads an image file of one of FORMATS, whatever it is called.

    Takes the first frame of an animation, applies the camera's orientation (EXIF), and
    makes transparent parts white. Unsigned integers of more than 8 bits are reduced to
    their top 8 bits; those of fewer bits are spread over 0 to 255.

    Args:
      file: The file, or its path.
      channels: 1 for gray, 3 for RGB, None to keep what the file has.

    Returns:
      An image of mode L or RGB.

    Raises:
      InputError: If the file is not such an image, is truncated, has more than
        MAX_PIXELS pixels, takes more than about MAX_SECONDS to decode, or has values
        without a fixed range: floats, signed integers, or integers of 32 bits.
    """
    where = f"{str(file)!r}: " if isinstance(file, Path | str) else ""
    try:
        with (
            _ONE_AT_A_TIME,
            warnings.catch_warnings(action="ignore"),
            _open(file) as image,
        ):
            # Read before decoding, when Pillow still knows it.
            packing = image.tile[0].args if image.tile else None
            image.load()
            _scale_transparent_color(image, packing)
            return convert_image(_upright(image), channels)
    except UnidentifiedImageError as error:
        problem = f"not a readable image: expected {FORMAT_NAMES}"
        raise InputError(f"{where}{problem}") from error
    except MemoryError as error:
        problem = "there is not enough memory to read it"
        raise InputError(f"{where}{problem}") from error
    # For a corrupt file, Pillow's decoders raise errors of any type.
    except Exception as error:
        problem = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{where}not a readable image: {problem}") from error


def convert_image(image: Image.Image, channels: int | None = None) -> Image.Image:
    """Converts an image of any mode to L or RGB, as `read_image` does."""
    if image.mode in ("I", "F"):
        kind = "floats" if image.mode == "F" else "signed or 32-bit integers"
        raise InputError(f"its pixels are {kind}, which have no fixed range")
    is_gray = image.mode in GRAY_MODES
    if image.mode.startswith("I;16"):
        image = _keep_top_bits(image)
    if image.mode == "LAB":  # Pillow converts LAB only to RGB.
        image = image.convert("RGB")
    if image.has_transparency_data:
        if image.mode == "La":
            image = image.convert("LA")
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = {None: "L" if is_gray else "RGB", 1: "L", 3: "RGB"}[channels]
    return image if image.mode == mode else image.convert(mode)


def resize_image(image: Image.Image, size: Sequence[int]) -> Image.Image:
    """Scales an image to fit into `[height, width]`, antialiased.

    The aspect ratio is kept, except that a side has at least one pixel. The rest of the
    frame is filled with the median color of the image's border.
    """
    height, width = size
    if image.size == (width, height):
        return image
    fitted_height, fitted_width = height, width
    own_ratio, ratio = image.width / image.height, width / height
    if own_ratio > ratio:
        fitted_height = max(1, round(image.height / image.width * width))
    elif own_ratio < ratio:
        fitted_width = max(1, round(image.width / image.height * height))
    pixels = border_pixels(np.atleast_3d(image))
    color = tuple(np.median(pixels, axis=0).astype(int).tolist())
    scaled = image.resize((fitted_width, fitted_height), Image.Resampling.BILINEAR)
    if scaled.size == (width, height):
        return scaled
    frame = Image.new(image.mode, (width, height), color)
    left = round((width - fitted_width) * 0.5)
    top = round((height - fitted_height) * 0.5)
    frame.paste(scaled, (left, top))
    return frame


def _upright(image: Image.Image) -> Image.Image:
    """Turns an image upright by its EXIF orientation; ignores the rest of the EXIF."""
    exif = image.info.get("exif", b"").removeprefix(JPEG_EXIF_START)
    if not _has_plain_tags(exif):
        return image
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    # A corrupt EXIF is ignored; the picture itself can be read.
    except Exception:
        return image
    method = ORIENTATIONS.get(orientation)
    return image if method is None else image.transpose(method)


def _keep_top_bits(image: Image.Image) -> Image.Image:
    """Converts an image of up to 16 bits to mode L."""
    tags = getattr(image, "tag_v2", {})  # Only a TIFF has them.
    num_bits = tags.get(TIFF_BITS_PER_SAMPLE, (16,))[0]
    values = np.asarray(image)
    pixels = (values >> (num_bits - 8)).astype(np.uint8)
    if tags.get(TIFF_PHOTOMETRIC) == TIFF_WHITE_IS_ZERO:
        pixels = 255 - pixels
    # The one gray value that means transparent.
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        pixels[values == transparent] = 255
    return Image.fromarray(pixels)


def _scale_transparent_color(image: Image.Image, packing: object) -> None:
    """Scales the transparent color of a PNG to the 8 bits that its pixels now have."""
    color = image.info.get("transparency")
    if packing in ("L;2", "L;4") and isinstance(color, int):
        image.info["transparency"] = color * (85 if packing == "L;2" else 17)
    if packing == "RGB;16B" and isinstance(color, tuple):
        image.info["transparency"] = tuple(value >> 8 for value in color)


class _TimedFile(io.BytesIO):
    """A file in memory that fails to be read once its time is up.

    Pillow reads a file's parts one by one, even those that it skips: a file of millions
    of tiny parts would take minutes.
    """

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._end = time.monotonic() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self._end:
            raise InputError(f"takes more than {MAX_SECONDS:g} s to decode")
        return super().read(size)


def _open(file: Path | str | BinaryIO) -> Image.Image:
    """Opens an image file; raises InputError if decoding it would take too much."""
    content = _read_bytes(file)
    num_scans = 1
    if content.startswith(JPEG_START):
        content, num_scans = _check_jpeg(content)
    if content.startswith(TIFF_STARTS) and not _has_plain_tags(content):
        raise InputError("its tags have too many values")
    is_small = len(content) <= MAX_UNTIMED_BYTES
    try:
        image = Image.open(
            # Looking at the clock takes a tenth of a small JPEG's time: Pillow reads it
            # in dozens of parts.
            io.BytesIO(content) if is_small else _TimedFile(content),
            formats=FORMATS,
        )
    except UnidentifiedImageError as error:
        if not is_image(content[:HEAD_BYTES]):
            raise
        problem = "damaged, or of an unsupported kind, such as 64-bit pixels"
        raise InputError(problem) from error
    num_pixels = image.width * image.height
    if num_pixels > MAX_PIXELS:
        raise InputError(
            f"image size ({num_pixels:,} pixels) exceeds limit of {MAX_PIXELS:,} pixels"
        )
    if num_scans * num_pixels > MAX_SCANNED_PIXELS:
        raise InputError(f"{num_scans:,} scans of {num_pixels:,} pixels, too many")
    if image.format == "TIFF":
        _check_tiff(image, content)
    is_run_length = image.tile and image.tile[0].codec_name == "bmp_rle"
    if is_run_length and image.width > MAX_RLE_WIDTH:
        raise InputError(f"a width of {image.width:,}, more than {MAX_RLE_WIDTH:,}")
    return image


def _check_jpeg(content: bytes) -> tuple[bytes, int]:
    """Counts the scans of a JPEG's first picture, up to where libjpeg stops reading.

    What follows, such as the video of a phone's motion photo, does not count.

    Returns:
      The file, without its EXIF if that is hostile, and the number of scans.

    Raises:
      InputError: If the file has more than MAX_JPEG_PARTS parts.
    """
    exif_parts = []
    num_parts = num_scans = 0
    position = len(JPEG_START) - 1
    while found := JPEG_MARKER.search(content, position):
        marker = content[found.end() - 1]
        if marker == JPEG_EOI:
            break
        position = found.end()
        if marker in (JPEG_TEM, JPEG_SOI):
            continue
        num_parts += 1
        if num_parts > MAX_JPEG_PARTS:
            raise InputError(f"a JPEG of more than {MAX_JPEG_PARTS:,} parts")
        num_scans += marker == JPEG_SOS
        start = position + 2
        position += int.from_bytes(content[position:start])
        is_exif = content.startswith(JPEG_EXIF_START, start)
        if marker == JPEG_APP1 and is_exif:
            exif_parts.append((found.start(), position))
    # Joined, as Pillow does.
    skipped = JPEG_MARKER_BYTES + len(JPEG_EXIF_START)
    exif = b"".join(content[start + skipped : end] for start, end in exif_parts)
    if not _has_plain_tags(exif):
        for start, end in reversed(exif_parts):
            content = content[:start] + content[end:]
    return content, num_scans


def _has_plain_tags(content: bytes) -> bool:
    """Tells whether the tags of a TIFF or EXIF can be read in little time and memory.

    Pillow copies what a tag refers to, and tags may all refer to the same bytes.
    """
    order = "<" if content.startswith(b"II") else ">"
    is_big = content.startswith(BIG_TIFF_STARTS)
    start_format, count_format, tag_format = (
        (f"{order}8xQ", f"{order}Q", f"{order}HHQ8x")
        if is_big
        else (f"{order}4xI", f"{order}H", f"{order}HHI4x")
    )
    try:
        (start,) = struct.unpack_from(start_format, content)
        (num_tags,) = struct.unpack_from(count_format, content, start)
    # There are no tags, or Pillow reports what is wrong with them.
    except struct.error:
        return True
    start += struct.calcsize(count_format)
    size = struct.calcsize(tag_format)
    num_tags = min(num_tags, (len(content) - start) // size)
    if num_tags > MAX_TAGS:
        return False
    num_bytes = 0
    for number in range(num_tags):
        _, kind, num_values = struct.unpack_from(
            tag_format, content, start + number * size
        )
        value_bytes = TIFF_VALUE_BYTES.get(kind, 0)
        if value_bytes > 1 and num_values > MAX_TAG_VALUES:
            return False
        num_bytes += num_values * value_bytes
    # Twice, because programs may store equal values only once.
    return num_bytes <= 2 * len(content)


def _check_tiff(image: Image.Image, content: bytes) -> None:
    """Raises InputError if decoding the strips or tiles of a TIFF takes too much."""
    tags = image.tag_v2
    if TIFF_TILE_WIDTH in tags:
        part_pixels = tags[TIFF_TILE_WIDTH] * tags.get(TIFF_TILE_HEIGHT, 1)
    else:
        rows = min(tags.get(TIFF_ROWS_PER_STRIP, image.height), image.height)
        part_pixels = image.width * rows
    if part_pixels > MAX_PIXELS:
        raise InputError(f"tiles of {part_pixels:,} pixels, more than {MAX_PIXELS:,}")
    compression = image.info.get("compression")
    if compression in ("jpeg", "tiff_jpeg"):
        part_bytes = tags.get(TIFF_TILE_BYTES) or tags.get(TIFF_STRIP_BYTES) or 0
        if np.sum(part_bytes) > len(content):
            raise InputError("its strips or tiles have more bytes than the file")
        # These two bytes begin a scan of a strip or tile.
        num_scans = content.count(bytes([0xFF, JPEG_SOS]))
        if num_scans * part_pixels > MAX_SCANNED_PIXELS:
            raise InputError(f"{num_scans:,} scans of {part_pixels:,} pixels, too many")
    if compression == "lzma" and len(content) > MAX_LZMA_BYTES:
        raise InputError(f"more than {MAX_LZMA_BYTES:,} bytes, compressed by LZMA")


def _read_bytes(file: Path | str | BinaryIO) -> bytes:
    if not isinstance(file, Path | str):
        content = file.read(MAX_FILE_BYTES + 1)
    else:
        # Opening a pipe would wait for somebody to write into it.
        if not stat.S_ISREG(os.stat(file).st_mode):
            raise InputError("not a regular file")
        with open(file, "rb", buffering=0) as opened:
            size = os.fstat(opened.fileno()).st_size
            content = b"" if size > MAX_FILE_BYTES else opened.readall()
        if size > MAX_FILE_BYTES:
            raise InputError(f"{size:,} bytes, more than {MAX_FILE_BYTES:,}")
    if len(content) > MAX_FILE_BYTES:
        raise InputError(f"more than {MAX_FILE_BYTES:,} bytes")
    return content
