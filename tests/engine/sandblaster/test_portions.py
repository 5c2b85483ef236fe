"""The data cut into portions, and stretches of it."""

from engine.sandblaster.portions import Portion, clipped, cut_data


def test_the_data_is_cut_into_portions_that_cover_every_sample_once():
    portions = cut_data([10, 3], 4)
    assert [p[1:] for p in portions] == [(0, 0, 4), (0, 4, 8), (0, 8, 10), (1, 0, 3)]
    assert [p.number for p in portions] == [0, 1, 2, 3]


def test_a_stretch_of_the_data_keeps_its_part_of_every_portion():
    portions = cut_data([10, 5], 4)
    kept = clipped(portions, 6, 12)
    assert kept == (Portion(1, 0, 6, 8), Portion(2, 0, 8, 10), Portion(3, 1, 0, 2))
    assert clipped(portions, 0, 15) == portions
