"""What a JPEG's header says beside what decoders tell: one walk over its segments."""

from typing import Final, NamedTuple

from data.exif import EXIF_MARK, UPRIGHT, tiff_orientation

START_OF_SCAN, APP1 = 0xDA, 0xE1
BASELINE: Final = (0xC0, 0xC1)  # frames whose rows come from top to bottom, in one pass


class JpegHeader(NamedTuple):
    """Found before the first scan."""

    orientation: int  # EXIF's, 1 to 8; 1 (upright) when there is none that can be read
    height_at: int | None  # offset of a baseline frame's height, a number of two bytes


def jpeg_header(data: bytes | memoryview) -> JpegHeader:
    """Read as far as segments follow each other: damage makes nothing fail."""
    place, height_at = 2, None
    exif: bytes | None = None
    marked = len(EXIF_MARK) + 4
    try:
        while data[place] == 0xFF and (marker := data[place + 1]) != START_OF_SCAN:
            end = place + 2 + (data[place + 2] << 8 | data[place + 3])
            is_exif = marker == APP1 and data[place + 4 : place + marked] == EXIF_MARK
            if is_exif and exif is None:
                exif = bytes(data[place + marked : end])
            elif marker in BASELINE and height_at is None:
                height_at = place + 5
            place = end
    except IndexError:
        pass
    return JpegHeader(UPRIGHT if exif is None else tiff_orientation(exif), height_at)
