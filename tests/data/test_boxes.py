"""Boxes move with the pixels: scaled, turned, put in order, clipped, dropped and counted."""

import numpy as np
import pytest
from PIL import Image

from data.boxes import Annotation, Box, BoxCounts, fit_boxes
from data.decode import decode_rgb
from tests.data.pictures import encoded


def fitted(*edges, frame=(100, 50), size=(100, 50), orientation=1, **more):
    records, counts = fit_boxes(
        Annotation(*frame, (Box("cat", *edges, **more),)), *size, orientation
    )
    return [record["box"] for record in records], counts


@pytest.mark.parametrize(
    ("edges", "box", "counts"),
    [
        ((10, 20, 30, 40), [10, 20, 30, 40], BoxCounts(kept=1)),
        ((10.5, 20, 30, 40.25), [10.5, 20, 30, 40.25], BoxCounts(kept=1)),
        ((30, 40, 10, 20), [10, 20, 30, 40], BoxCounts(kept=1, reordered=1)),
        ((-5, 20, 130, 60), [0, 20, 100, 50], BoxCounts(kept=1, clipped=1)),
        ((130, -5, 30, 40), [30, 0, 100, 40], BoxCounts(kept=1, reordered=1, clipped=1)),
        ((0, 0, 100, 50), [0, 0, 100, 50], BoxCounts(kept=1)),
        ((101, 0, 130, 40), None, BoxCounts(dropped=1)),
        ((10, 20, 10, 40), None, BoxCounts(dropped=1)),
    ],
)
def test_a_box_is_mended_or_dropped_and_counted(edges, box, counts):
    assert fitted(*edges) == ([] if box is None else [box], counts)


def test_a_box_is_scaled_from_the_frame_that_the_annotator_saw():
    assert fitted(10, 20, 30, 40, size=(200, 150))[0] == [[20, 60, 60, 120]]
    assert fitted(10, 20, 30, 40, frame=(0, 0), size=(200, 150))[0] == [[10, 20, 30, 40]]


def test_difficult_objects_are_marked():
    records, _ = fit_boxes(Annotation(9, 9, (Box("cat", 1, 2, 3, 4, difficult=True),)), 9, 9, 1)
    assert records == [{"class_name": "cat", "box": [1, 2, 3, 4], "difficult": True}]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_box_turns_with_the_image_that_decoding_turns(orientation):
    stored = Image.new("L", (48, 32))
    stored.paste(255, (8, 16, 24, 24))  # whole blocks, which JPEG keeps
    exif = Image.Exif()
    exif[0x0112] = orientation
    white = decode_rgb(encoded(stored, exif=exif), 10_000)[..., 0] > 128
    rows, columns = np.flatnonzero(white.any(1)), np.flatnonzero(white.any(0))
    size = white.shape[::-1]
    boxes, _ = fitted(8, 16, 24, 24, frame=(48, 32), size=size, orientation=orientation)
    assert boxes == [[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]


def test_an_annotator_who_saw_the_image_upright_is_believed():
    assert fitted(1, 2, 3, 4, frame=(32, 48), size=(32, 48), orientation=6)[0] == [[1, 2, 3, 4]]
