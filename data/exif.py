"""The orientation in a JPEG's EXIF: read by hand, since Pillow warns of every broken EXIF."""

import struct
from typing import Final

UPRIGHT: Final = 1
EXIF_MARK: Final = b"Exif\x00\x00"
ORIENTATION_TAG: Final = 0x0112
SHORT: Final = 3  # the type of its value
START_OF_SCAN, APP1 = 0xDA, 0xE1


def jpeg_orientation(data: bytes | memoryview) -> int:
    """Give the EXIF orientation, 1 to 8; 1 (upright) when there is none that can be read."""
    try:
        return _of_tiff(_exif(data))
    except (struct.error, IndexError):
        return UPRIGHT


def _exif(data: bytes | memoryview) -> bytes:
    """The TIFF structure in the first APP1 segment that holds one."""
    place = 2
    while data[place] == 0xFF and data[place + 1] != START_OF_SCAN:
        (num_bytes,) = struct.unpack_from(">H", data, place + 2)
        start = place + 4 + len(EXIF_MARK)
        if data[place + 1] == APP1 and data[place + 4 : start] == EXIF_MARK:
            return bytes(data[start : place + 2 + num_bytes])
        place += 2 + num_bytes
    return b""


def _of_tiff(tiff: bytes) -> int:
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "<")
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + 12 * num_entries, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == ORIENTATION_TAG and kind == SHORT and 1 <= value <= 8:
            return int(value)
    return UPRIGHT
