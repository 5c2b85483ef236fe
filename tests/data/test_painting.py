"""Painting a crop equals the same arithmetic in numpy, to the bit, and touches nothing else."""

import numpy as np
import pytest

from data.painting import paint


def filled(size, flip, first):
    """A painted image, with the values before and behind it; and what it should be."""
    rng = np.random.default_rng(size)
    crop = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    offset = rng.standard_normal(3, np.float32) * 100
    memory = np.full(crop.size + 64, np.nan, np.float32)
    to_line = -memory.ctypes.data % 64 // 4
    row = memory[to_line + first :][: crop.size]
    paint(row, crop, flip, np.tile(offset, 16))
    return memory, row, (crop[:, ::-1] if flip else crop) + offset


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("first", [0, 1], ids=["whole lines of the cache", "beside them"])
@pytest.mark.parametrize("size", [1, 15, 16, 28, 48, 224])
def test_a_painted_crop_is_flipped_and_shifted_to_the_bit(size, first, flip):
    memory, row, expected = filled(size, flip, first)
    np.testing.assert_array_equal(row.reshape(expected.shape), expected)
    assert np.isnan(memory).sum() == 64
