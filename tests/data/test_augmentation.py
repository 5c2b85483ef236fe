"""VGG's augmentation against its literal form, and chance that belongs to the sample."""

import numpy as np
import pytest
from PIL import Image

from data.augmentation import RGB_COMPONENTS, RGB_VARIANCES, colour_shifts, draw, rescaled_crop
from data.config import InputConfig
from data.decode import decode_rgb
from tests.data.pictures import encoded, picture

CONFIG = InputConfig(side_min=28, side_max=36, crop_size=28)


def literal_crop(image, side, crop_size, corner):
    """Rescale the whole image, then cut the crop out of it."""
    scale = side / min(image.size)
    whole = image.resize(
        [max(side, round(n * scale)) for n in image.size], Image.Resampling.BILINEAR
    )
    left, top = (int(c * (n - crop_size + 1)) for c, n in zip(corner, whole.size, strict=True))
    return whole.crop((left, top, left + crop_size, top + crop_size))


@pytest.mark.parametrize("size", [(28, 28), (50, 40), (33, 97), (500, 375), (20, 16)])
@pytest.mark.parametrize("side", [28, 31, 36, 64])
@pytest.mark.parametrize("corner", [(0.0, 0.0), (0.5, 0.3), (0.999, 0.999)])
def test_one_interpolation_equals_rescaling_everything_and_cropping_then(size, side, corner):
    image = picture(1, *size)
    ours = rescaled_crop(image, 1.0, size, side, 28, np.array(corner))
    assert ours.size == (28, 28)
    difference = np.asarray(ours).astype(int) - np.asarray(literal_crop(image, side, 28, corner))
    assert np.abs(difference).max() <= 2  # each of Pillow's two passes rounds
    assert np.abs(difference).mean() < 0.15


@pytest.mark.parametrize("eighths", [2, 4])
def test_a_crop_of_a_reduced_decoding_shows_the_same_part(eighths):
    image = picture(2, 403, 301)
    reduced = Image.fromarray(decode_rgb(encoded(image), 10**6, eighths))
    for corner in ((0.0, 0.0), (0.6, 0.4), (0.999, 0.999)):
        ours = rescaled_crop(reduced, eighths / 8, image.size, 64, 56, np.array(corner))
        difference = np.asarray(ours).astype(int) - np.asarray(literal_crop(image, 64, 56, corner))
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
