"""A few bytes that claim, or unpack to, more than any memory or disk."""

import bz2
import gzip
import lzma
import struct
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from tests.data.miniature.photos import encoded

ZEROS = bytes(10_000_000)
TIMES = 1000  # 10 GB


def gzip_bomb() -> bytes:
    return gzip.compress(ZEROS) * TIMES


def xz_bomb() -> bytes:
    return lzma.compress(ZEROS) * TIMES


def bz2_bomb() -> bytes:
    return bz2.compress(ZEROS) * TIMES


def mat_bomb() -> bytes:
    packed = zlib.compress(bytes(100_000_000))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    return header + struct.pack("<II", 15, len(packed)) + packed


def jpeg_claiming(width: int, height: int) -> bytes:
    data = bytearray(encoded(Image.new("L", (16, 16)), "JPEG"))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def png_claiming(width: int, height: int) -> bytes:
    return _png(width, height, 8, bytes(100))


def png(values: npt.NDArray[np.uint16]) -> bytes:
    """A PNG of 16-bit RGB, which Pillow does not write; values (H, W, 3), big-endian."""
    height, width, _ = values.shape
    return _png(width, height, 16, b"".join(b"\0" + row.tobytes() for row in values))


def png_text_bomb() -> bytes:
    text = b"Comment\0\0" + zlib.compress(bytes(100_000_000))
    return _png(4, 4, 8, (b"\0" + bytes(12)) * 4, _chunk(b"zTXt", text))


def _png(width: int, height: int, depth: int, rows: bytes, more: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    body = _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + body


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
