"""The flat vector: names, views and the cuts between shards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.layout import ALIGNMENT, Layout


def layout_of_size(size: int) -> Layout:
    return Layout(("all",), ((size,),))


@given(st.integers(1, 5000), st.data())
def test_slices_cover_the_vector_without_gap_or_overlap(size, data):
    layout = layout_of_size(size)
    num_shards = data.draw(st.integers(1, -(-size // ALIGNMENT)))
    slices = layout.slices(num_shards)
    assert len(slices) == num_shards
    assert [i for part in slices for i in range(size)[part]] == list(range(size))


@given(st.integers(1, 5000), st.data())
def test_slices_are_aligned_and_nearly_equal(size, data):
    num_shards = data.draw(st.integers(1, -(-size // ALIGNMENT)))
    slices = layout_of_size(size).slices(num_shards)
    lengths = [part.stop - part.start for part in slices]
    assert all(part.start % ALIGNMENT == 0 for part in slices)
    assert min(lengths) > 0
    assert max(lengths) - min(lengths) < 2 * ALIGNMENT


@pytest.mark.parametrize("num_shards", [0, -1, 8])
def test_a_vector_is_not_cut_into_more_shards_than_it_has_cache_lines(num_shards):
    with pytest.raises(ValueError, match=f"num_shards={num_shards}: .*100 .*1 to 7 shards"):
        layout_of_size(100).slices(num_shards)


def test_writing_to_a_view_writes_to_the_vector():
    layout = Layout(("weight", "bias"), ((2, 3), (2,)))
    flat = torch.zeros(layout.size)
    views = layout.views(flat)
    views["weight"][1, 2] = 5.0
    views["bias"].fill_(7.0)
    assert flat.tolist() == [0, 0, 0, 0, 0, 5, 7, 7]


def test_flattening_and_viewing_are_inverse():
    tensors = {"b": torch.randn(3, 4), "scalar": torch.tensor(2.0), "a": torch.randn(5)}
    layout = Layout.of(tensors)
    views = layout.views(layout.flatten(tensors))
    assert list(views) == ["b", "scalar", "a"]
    assert all(torch.equal(views[name], tensors[name]) for name in tensors)


def test_flattening_copies():
    tensors = {"a": torch.zeros(3)}
    flat = Layout.of(tensors).flatten(tensors)
    tensors["a"].fill_(1.0)
    assert flat.tolist() == [0, 0, 0]


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"shape \(7,\), layout wants \(8,\)"):
        layout_of_size(8).views(torch.zeros(7))


def test_tensors_of_different_dtypes_are_refused():
    with pytest.raises(ValueError, match=r"one dtype, got .*float32.*float64"):
        Layout.of({"a": torch.zeros(1), "b": torch.zeros(1, dtype=torch.float64)})


def test_the_digest_tells_layouts_apart():
    layouts = [
        Layout(("a", "b"), ((2, 3), (2,))),
        Layout(("b", "a"), ((2, 3), (2,))),
        Layout(("a", "b"), ((3, 2), (2,))),
        Layout(("a", "b"), ((2, 3), (2,)), torch.float64),
    ]
    assert len({layout.digest for layout in layouts}) == len(layouts)
    assert layouts[0].digest == Layout(("a", "b"), ((2, 3), (2,))).digest
