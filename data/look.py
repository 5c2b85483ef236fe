"""Telling whether an image can be used and how large it is, by decoding it or by its header."""

from typing import Final, NamedTuple

import simplejpeg

from data.decode import (
    MAX_PIXELS_PER_BYTE,
    Encoded,
    RgbImage,
    decode_rgb,
    file_extension,
)
from data.exif import UPRIGHT
from data.jpeg_header import jpeg_header

END_MARK: Final = b"\xff\xd9"
TRAILING_BYTES: Final = 64  # some writers leave a little behind the end mark
COLOURS: Final = ("Gray", "YCbCr", "RGB")


class Look(NamedTuple):
    """What was found out about an image."""

    width: int  # as decoded, pixels
    height: int
    image: RgbImage | None  # at any scale; None: not decoded


def look_at(data: Encoded, max_pixels: int) -> Look:
    """Decode an image whole.

    Raises:
        UndecodableImage: as `decode_rgb` does.
    """
    image = decode_rgb(bytes(data), max_pixels)
    height, width, _ = image.shape
    return Look(width, height, image)


def glance_at(data: Encoded, max_pixels: int, with_pixels: bool) -> Look:
    """Trust a JPEG that begins and ends as one; decode whatever else it is.

    A JPEG with a sound header, within `max_pixels`, with an end mark and nothing odd about it is
    not decoded, or only at an eighth of its size `with_pixels`. What decoders refuse beyond that is
    rare: most of them make a picture of any damage inside a scan.

    Raises:
        UndecodableImage: as `decode_rgb` does.
    """
    size = _size_of_plain_jpeg(data, max_pixels)
    if size is None:
        return look_at(data, max_pixels)
    return Look(*size, decode_rgb(bytes(data), max_pixels, eighths=1) if with_pixels else None)


def _size_of_plain_jpeg(data: Encoded, max_pixels: int) -> tuple[int, int] | None:
    """Width and height; None for whatever has to be decoded to be judged."""
    if file_extension(data) != "jpg" or END_MARK not in bytes(data[-TRAILING_BYTES:]):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    most = min(max_pixels, MAX_PIXELS_PER_BYTE * len(data))
    if colours not in COLOURS or width * height > most or jpeg_header(data).orientation != UPRIGHT:
        return None
    return width, height
