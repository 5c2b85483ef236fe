"""Rescaling and the grid of crops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.views import centre_crop, grid_positions, rescale_smallest_side
from tests.references import multi_crop


@settings(max_examples=50)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 60))
def test_the_smallest_side_becomes_the_size_and_the_other_follows_to_the_pixel(height, width, size):
    rescaled = rescale_smallest_side(torch.zeros(3, height, width), size)
    scale = size / min(height, width)
    assert min(rescaled.shape[1:]) == size
    assert abs(rescaled.shape[1] - height * scale) <= 0.5
    assert abs(rescaled.shape[2] - width * scale) <= 0.5


def test_a_batch_is_rescaled_as_its_images_are():
    batch = torch.randn(3, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    together = rescale_smallest_side(batch, 17)
    for image, rescaled in zip(batch, together, strict=True):
        torch.testing.assert_close(rescale_smallest_side(image, 17), rescaled)


def test_an_image_of_the_right_size_stays_as_it_is():
    image = torch.randn(3, 20, 31, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rescale_smallest_side(image, 20), image)


def test_shrinking_averages_instead_of_picking_pixels():
    stripes = torch.tensor([0.0, 240.0]).repeat(24).expand(3, 48, 48)
    assert (rescale_smallest_side(stripes, 16) - 120).abs().max() < 60


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 40), (36, 36), (90, 61)])
def test_positions_with_their_counts_are_the_literal_grid(height, width):
    image = torch.randn(3, height, width, generator=torch.Generator().manual_seed(0))
    wanted = multi_crop.crops(image, 32, per_side=5)
    positions = grid_positions(height, width, 32, crops_per_side=5)
    got = [image[:, t : t + 32, left : left + 32] for t, left in positions.elements()]
    assert len(got) == len(wanted) == 25
    assert sorted(float(c.sum()) for c in got) == sorted(float(c.sum()) for c in wanted)


def test_the_grid_reaches_the_four_corners():
    positions = grid_positions(50, 70, 32, crops_per_side=5)
    assert {(0, 0), (0, 38), (18, 0), (18, 38)} <= set(positions)


def test_an_image_of_the_crop_s_size_has_one_position_that_counts_for_all():
    assert grid_positions(32, 32, 32, crops_per_side=5) == {(0, 0): 25}


def test_a_single_crop_is_the_centre():
    assert grid_positions(36, 50, 32, crops_per_side=1) == {(2, 9): 1}
    image = torch.arange(36 * 50.0).view(36, 50)
    assert torch.equal(centre_crop(image, 32), image[2:34, 9:41])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="a crop of 32 pixels does not fit into 31x40"):
        grid_positions(31, 40, 32, crops_per_side=5)
