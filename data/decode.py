"""Image bytes to 8-bit RGB: one stated rule for every odd file that real data sets hold."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, UnidentifiedImageError

from data.exif import ORIENTATION_TAG, UPRIGHT
from data.jpeg_header import jpeg_header
from data.jpeg_rows import cut_below

RgbImage = npt.NDArray[np.uint8]  # (H, W, 3)
Encoded = bytes | memoryview  # a file's bytes

FULL_SCALE: Final = 8  # JPEG scales are counted in eighths, as the format's 8x8 blocks are
FAST_SCALES: Final = (1, 2, 4, 8)  # eighths; the scales between are slower than full decoding
# Left out on purpose: formats that start a program (EPS) and those that hold no photographs.
FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by EXIF orientation
# Of a JPEG: a block of 8x8 pixels takes at least one bit. Decoders fill up what is missing.
MAX_PIXELS_PER_BYTE: Final = 512
EXTENSIONS: Final = {
    b"\xff\xd8\xff": "jpg",
    b"\x89PNG": "png",
    b"GIF8": "gif",
    b"BM": "bmp",
    b"RIFF": "webp",
    b"II*\x00": "tif",
    b"MM\x00*": "tif",
}

# `max_pixels` is checked from every header before decoding; Pillow's own limit would only warn.
Image.MAX_IMAGE_PIXELS = None


class UndecodableImage(ValueError):
    """The bytes are no image that can be used. The text is a predicate: "is empty: 0 bytes"."""


def decode_rgb(
    data: bytes, max_pixels: int, eighths: int = FULL_SCALE, num_rows: int | None = None
) -> RgbImage:
    """Decode one image by these rules.

    EXIF orientation is applied; transparency is laid on white; grey, palette, CMYK and YCbCr are
    converted; 16 bits per channel are scaled to 8, not clipped; ICC profiles are ignored; of an
    animation the first frame counts. Truncated data is refused. Damage that lies inside a complete
    JPEG scan is not visible to a decoder and passes.

    Args:
        data: the file's bytes; the format is told from them, never from a name.
        max_pixels: larger images are refused from the header, before anything is allocated.
        eighths: one of FAST_SCALES; a plain JPEG comes back at this scale, anything else whole.
        num_rows: rows of the result that are needed, from the top: a plain JPEG, which has to be
            whole, comes back with only these and perhaps a few more.

    Returns:
        (H, W, 3), writable. When scaled, each side is ceil(side * eighths / 8): a pixel stands for
        exactly 8 / eighths pixels of the original, and the last ones may reach over its edge.

    Raises:
        UndecodableImage: empty, too large, truncated, or no image of a known format.
    """
    if not data:
        raise UndecodableImage("is empty: 0 bytes")
    if file_extension(data) == "jpg":
        decoded = _decode_plain_jpeg(data, max_pixels, eighths, num_rows)
        if decoded is not None:
            return decoded
    return _decode_with_pillow(data, max_pixels)


def file_extension(data: Encoded) -> str:
    """Name the extension that belongs to the bytes, whatever the file was called; else "img"."""
    start = bytes(data[:8])
    for magic, extension in EXTENSIONS.items():
        if start.startswith(magic):
            return extension
    return "img"


def orientation(data: Encoded) -> int:
    """Give the EXIF orientation, 1 to 8, that `decode_rgb` applies; 1: upright as stored."""
    if file_extension(data) == "jpg":
        return jpeg_header(data).orientation
    with _opened(data) as image:
        return _told_orientation(image)


def smallest_scale(smallest_side: int, wanted_side: int) -> int:
    """Return the smallest of FAST_SCALES that still leaves `wanted_side` pixels, in eighths."""
    return next(
        (m for m in FAST_SCALES if smallest_side * m >= wanted_side * FULL_SCALE), FULL_SCALE
    )


def _decode_plain_jpeg(
    data: bytes, max_pixels: int, eighths: int, num_rows: int | None
) -> RgbImage | None:
    """None for the JPEGs that Pillow has to look at: CMYK, with EXIF orientation, or damaged."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(width, height, max_pixels)
    if width * height > MAX_PIXELS_PER_BYTE * len(data):
        raise UndecodableImage(f"has {width}x{height} pixels, but only {len(data)} bytes: is cut")
    header = jpeg_header(data)
    if colours in ("CMYK", "YCCK") or header.orientation != UPRIGHT:
        return None
    shortened: bytes | bytearray = data
    if num_rows is not None:
        rows_of_original = -(-num_rows * FULL_SCALE // eighths)
        height = min(height, rows_of_original)
        shortened = cut_below(data, header.height_at, rows_of_original)
    try:
        rgb: RgbImage = simplejpeg.decode_jpeg(
            shortened,
            "RGB",
            min_height=-(-int(height) * eighths // FULL_SCALE),
            min_width=-(-int(width) * eighths // FULL_SCALE),
            strict=shortened is data,
        )
    except ValueError:  # recoverable damage, which Pillow accepts as every other loader does
        return None
    return rgb


def _decode_with_pillow(data: bytes, max_pixels: int) -> RgbImage:
    with _opened(data) as image:
        _check_size(*image.size, max_pixels)
        is_jpeg = file_extension(data) == "jpg"
        turn = TURNS.get(jpeg_header(data).orientation if is_jpeg else _told_orientation(image))
        return np.array(_as_rgb(image if turn is None else image.transpose(turn)))


def _told_orientation(image: Image.Image) -> int:
    value = image.getexif().get(ORIENTATION_TAG, UPRIGHT)
    return value if value in TURNS else UPRIGHT


@contextmanager
def _opened(data: Encoded) -> Iterator[Image.Image]:
    """Open with Pillow; whatever goes wrong inside the block becomes UndecodableImage."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            yield image
    except UndecodableImage:
        raise
    except UnidentifiedImageError as error:
        raise UndecodableImage(
            f"is no image of a known format: it starts with {bytes(data[:8])!r}"
        ) from error
    except Exception as error:  # struct.error, IndexError, zlib.error, ...: plugins leak them all
        raise UndecodableImage(f"cannot be decoded: {error}") from error


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UndecodableImage(
            f"has {width}x{height} = {width * height} pixels, more than max_pixels={max_pixels}"
        )


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _scaled_to_8_bits(image)
    if image.mode == "F":
        raise UndecodableImage("holds floating-point pixels, whose range is not defined")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    """From [0, 65535]; Pillow's own conversion clips at 255 and whitens nearly every pixel."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise UndecodableImage(f"holds values outside [0, 65535]: {values.min()}..{values.max()}")
    return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
