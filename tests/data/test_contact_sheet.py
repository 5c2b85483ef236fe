"""The contact sheet shows each image of a tar in its place."""

import numpy as np
import pytest

from data.contact_sheet import CAPTION_HEIGHT, GAP, PICTURE_SIDE, contact_sheet, main
from data.test_images import TestReader


def test_each_image_has_its_place_in_rows(pets):
    sheet = contact_sheet(pets, "test", 0, columns=4)
    width, height = PICTURE_SIDE + GAP, PICTURE_SIDE + CAPTION_HEIGHT + GAP
    assert sheet.size == (GAP + 4 * width, GAP + 2 * height)
    for place, (image, _) in enumerate(TestReader(pets)):
        left = GAP + place % 4 * width
        top = GAP + place // 4 * height
        middle = sheet.getpixel((left + PICTURE_SIDE // 2, top + PICTURE_SIDE // 2))
        around = image[7:10, 9:12].reshape(-1, 3)
        assert (np.abs(around.astype(int) - middle).max(axis=1) <= 30).any()


def test_unused_places_stay_white(pets):
    sheet = contact_sheet(pets, "test", 0, columns=4)
    assert sheet.getpixel((sheet.width - PICTURE_SIDE, sheet.height - PICTURE_SIDE)) == (255,) * 3


@pytest.mark.parametrize(
    ("tar", "picture", "message"),
    [
        ("train-000000.tar", "a/b.png", r".*No such file or directory: '.*/a/b.png'"),
        ("train-000000.tar", "b.xyz", r"unknown file extension: .xyz"),
        ("test-000009.tar", "b.png", r".*: has \d test tars: tar 9 is none of them"),
        ("no/train-000000.tar", "b.png", r".*no/manifest.json: no such file"),
        ("notes.txt", "b.png", r"notes.txt: expected the name of a staged tar"),
    ],
)
def test_the_command_ends_with_one_message(pets, tmp_path, tar, picture, message):
    with pytest.raises(SystemExit, match=message):
        main([str(pets / tar), str(tmp_path / picture)])
