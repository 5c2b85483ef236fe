"""The orientation is what Pillow reads, and broken EXIF means upright, without a word."""

import random

import pytest
from PIL import Image

from data.jpeg_header import jpeg_header
from tests.data.pictures import encoded, picture


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("endian", ["<", ">"])
def test_the_orientation_is_found_among_other_tags(orientation, endian):
    exif = Image.Exif()
    exif.endian = endian
    exif[0x010F], exif[0x0112], exif[0x0131] = "Maker", orientation, "Software"
    assert jpeg_header(encoded(picture(0), exif=exif)).orientation == orientation


def test_without_exif_or_with_an_unknown_value_an_image_is_upright():
    exif = Image.Exif()
    exif[0x0112] = 9
    assert jpeg_header(encoded(picture(0))).orientation == 1
    assert jpeg_header(encoded(picture(0), exif=exif)).orientation == 1


def test_no_damage_makes_it_fail():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(0), exif=exif)
    rng = random.Random(0)
    for _ in range(2000):
        broken = bytearray(data[: rng.randrange(2, 120)])
        broken[rng.randrange(len(broken))] = rng.randrange(256)
        assert 1 <= jpeg_header(bytes(broken)).orientation <= 8
