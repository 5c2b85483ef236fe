"""VGG's augmentation against its literal form, and chance that belongs to the sample."""

import math

import numpy as np
import pytest
from PIL import Image

from data.augmentation import (
    RGB_COMPONENTS,
    RGB_VARIANCES,
    Region,
    colour_shifts,
    crop_region,
    draw,
)
from data.config import InputConfig
from data.decode import decode_rgb
from tests.data.pictures import crop_of, encoded, picture

CONFIG = InputConfig(side_min=28, side_max=36, crop_size=28)


def literal_crop(image, region, crop_size):
    """Cut the region and rescale it by Pillow."""
    box = (
        region.left,
        region.top,
        min(image.width, region.left + crop_size * region.step),
        min(image.height, region.top + crop_size * region.step),
    )
    return np.asarray(image.resize((crop_size, crop_size), Image.Resampling.BILINEAR, box))


@pytest.mark.parametrize("size", [(28, 28), (50, 40), (33, 97), (500, 375), (20, 16)])
@pytest.mark.parametrize("side", [28, 31, 36, 64])
@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.5, 0.3), (0.999, 0.999)])
def test_a_crop_is_what_pillow_makes_of_the_same_box(size, side, corner):
    image = picture(1, *size)
    region = crop_region(size, 1.0, side, 28, np.array(corner))
    ours = crop_of(np.array(image), region, 28)
    assert ours.shape == (28, 28, 3)
    difference = np.abs(ours.astype(int) - literal_crop(image, region, 28))
    inner = difference[2:-2, 2:-2]  # at its edge Pillow looks beyond the box
    assert inner.max() <= 2  # each of the two passes rounds
    assert inner.mean() < 0.3


@pytest.mark.parametrize("size", [(28, 28), (50, 40), (33, 97), (500, 375), (20, 16)])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_region_lies_inside_and_has_the_crops_scale(size, scale):
    for side in range(28, 60):
        for corner in ((0.0, 0.0), (0.5, 0.3), (0.999, 0.999)):
            region = crop_region(size, scale, side, 28, np.array(corner))
            assert region.left >= 0
            assert region.top >= 0
            assert region.left + region.width <= math.ceil(size[0] * scale)
            assert region.bottom <= math.ceil(size[1] * scale)
            assert region.step == scale * min(size) / side
            assert min(region.width, region.height) >= 28 * region.step - 1e-9


def test_corners_reach_both_ends():
    regions = [crop_region((90, 60), 1.0, 40, 28, np.array([c, c])) for c in (0.0, 0.999)]
    assert [(r.left, r.top) for r in regions] == [(0, 0), (90 - 42, 60 - 42)]


@pytest.mark.parametrize("eighths", [2, 4])
def test_a_crop_of_a_reduced_decoding_shows_the_same_part(eighths):
    image = picture(2, 403, 301)
    reduced = decode_rgb(encoded(image), 10**6, eighths)
    for corner in ((0.0, 0.0), (0.6, 0.4), (0.999, 0.999)):
        region = crop_region(image.size, eighths / 8, 64, 56, np.array(corner))
        per_pixel = 8 // eighths
        same = Region(*(per_pixel * length for length in region))
        difference = crop_of(reduced, region, 56).astype(int) - literal_crop(image, same, 56)
        assert np.abs(difference).mean() < 2


def test_the_colour_shift_is_the_papers_formula():
    alphas = np.random.default_rng(0).normal(0, 0.1, (5, 3))
    p1, p2, p3 = RGB_COMPONENTS.T
    l1, l2, l3 = RGB_VARIANCES
    for (a1, a2, a3), ours in zip(alphas, colour_shifts(alphas), strict=True):
        in_unit_range = a1 * l1 * p1 + a2 * l2 * p2 + a3 * l3 * p3
        np.testing.assert_allclose(ours, 255 * in_unit_range, rtol=1e-5)


def test_the_colour_shift_has_the_size_known_for_pixels_up_to_255():
    np.testing.assert_allclose(RGB_COMPONENTS.T @ RGB_COMPONENTS, np.eye(3), atol=1e-3)
    np.testing.assert_allclose(255 * RGB_VARIANCES, [55.46, 4.794, 1.148], rtol=1e-3)
    shifts = draw(0, 0, 0, 20_000, InputConfig()).shifts
    expected = 0.1 * np.sqrt((RGB_COMPONENTS**2) @ (255 * RGB_VARIANCES) ** 2)
    np.testing.assert_allclose(shifts.std(axis=0), expected, rtol=0.03)
    np.testing.assert_allclose(shifts.mean(axis=0), 0, atol=0.1)


def test_sides_are_uniform_over_both_ends():
    sides = draw(0, 0, 0, 9_000, CONFIG).sides
    counts = np.bincount(sides - 28)
    assert len(counts) == 9
    assert np.abs(counts - 1000).max() < 150


def test_order_is_a_permutation_and_half_are_flipped():
    draws = draw(3, 1, 2, 1000, CONFIG)
    assert sorted(draws.order) == list(range(1000))
    assert abs(draws.flips.mean() - 0.5) < 0.05
    assert ((draws.corners >= 0) & (draws.corners < 1)).all()


def test_seed_epoch_and_tar_each_change_every_draw():
    base = draw(0, 0, 0, 100, CONFIG)
    for other in (
        draw(1, 0, 0, 100, CONFIG),
        draw(0, 1, 0, 100, CONFIG),
        draw(0, 0, 1, 100, CONFIG),
    ):
        for ours, theirs in zip(base, other, strict=True):
            assert (ours != theirs).any()
    for ours, again in zip(base, draw(0, 0, 0, 100, CONFIG), strict=True):
        np.testing.assert_array_equal(ours, again)


def test_switching_one_thing_off_changes_nothing_else():
    base = draw(0, 0, 0, 100, CONFIG)
    plain = draw(
        0,
        0,
        0,
        100,
        InputConfig(side_min=28, side_max=36, crop_size=28, flip=False, colour_shift_std=0),
    )
    assert not plain.flips.any()
    assert not plain.shifts.any()
    for name in ("order", "sides", "corners"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(base, name))
