"""Vectors in one piece of memory, and the same ones apart: the same sums and products."""

import math

import pytest
import torch
from torch import Tensor

from engine.batch.local import LocalStore
from engine.batch.stacks import BLOCK, combine, products, stacked
from engine.batch.vector import Combine, copy

SIZE = BLOCK + 77


def rows(dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Six rows of one matrix, of small whole numbers."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randint(-4, 5, (6, SIZE + 3), generator=generator).to(dtype)
    return list(matrix[:, :SIZE])


def test_rows_at_equal_distances_are_one_matrix_and_others_are_not():
    r = rows()
    shapes = {
        (0, 1, 2): [3],
        (1, 3, 5): [3],
        (0, 1, 3): [2, 1],
        (3, 2): [1, 1],
        (4, 5, 0, 1): [2, 2],
    }
    for order, lengths in shapes.items():
        matrices = stacked([r[k] for k in order])
        assert [len(matrix) for matrix in matrices] == lengths
        assert torch.equal(torch.cat(matrices), torch.stack([r[k] for k in order]))
    assert [len(m) for m in stacked([r[0], r[1].clone(), r[2]])] == [1, 1, 1]
    assert [len(m) for m in stacked([r[0], r[0]])] == [1, 1]


@pytest.mark.parametrize("first", [1.0, 0.5])
@pytest.mark.parametrize("order", [(0, 1, 2), (5, 1, 3, 0), (2,), (0, 4, 0)])
def test_sums_and_products_are_those_of_vectors_that_lie_apart(order, first):
    together = [rows()[k] for k in order]
    apart = [vector.clone() for vector in together]
    coefficients = [first, -2.0, 0.25, 3.0][: len(order)]
    target, expected = torch.full((2, SIZE), math.nan, dtype=torch.float64)
    combine(target, list(zip(coefficients, together, strict=True)))
    for coefficient, vector in zip(coefficients, apart, strict=True):
        expected = expected.nan_to_num() + coefficient * vector
    assert torch.equal(target, expected)
    table = torch.stack(apart) @ torch.stack(apart).T
    assert torch.equal(products(together[:2], together), table[:2])


def test_a_row_that_is_not_asked_for_may_hold_anything():
    r = rows(torch.float32)
    r[2].fill_(math.nan)
    target = torch.empty(SIZE)
    combine(target, [(2.0, r[k]) for k in (0, 1, 3, 4)])
    assert torch.isfinite(target).all()
    assert torch.isfinite(products([r[1]], [r[0], r[3]])).all()


def test_a_store_lays_reserved_vectors_out_as_one_matrix():
    store = LocalStore(x=torch.ones(100))
    store.reserve(["a", "b", "c"])
    store.run((copy("c", "x"), copy("a", "x"), Combine("b", ()), copy("other", "x")))
    names = ("a", "b", "c", "other")
    assert [len(m) for m in stacked([store.vectors[name] for name in names])] == [3, 1]
    assert [float(store.vectors[name].sum()) for name in names] == [100, 0, 100, 100]
