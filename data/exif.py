"""The orientation in EXIF: read by hand, since Pillow warns of every broken EXIF."""

import struct
from typing import Final

UPRIGHT: Final = 1
EXIF_MARK: Final = b"Exif\x00\x00"
ORIENTATION_TAG: Final = 0x0112
SHORT: Final = 3  # the type of its value


def tiff_orientation(tiff: bytes) -> int:
    """Give the orientation, 1 to 8, in a TIFF structure; 1 (upright) when none can be read."""
    try:
        return _told_by(tiff)
    except struct.error:
        return UPRIGHT


def _told_by(tiff: bytes) -> int:
    order = ">" if tiff[:2] == b"MM" else "<"
    (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
    (num_entries,) = struct.unpack_from(f"{order}H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + 12 * num_entries, 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, entry)
        if tag == ORIENTATION_TAG and kind == SHORT and 1 <= value <= 8:
            return int(value)
    return UPRIGHT
