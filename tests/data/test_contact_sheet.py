"""The contact sheet shows each image of a tar in its place."""

import numpy as np

from data.contact_sheet import CAPTION_HEIGHT, GAP, PICTURE_SIDE, contact_sheet
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
