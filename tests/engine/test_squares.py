"""The sum of squares does not depend on the pieces that a gradient comes in."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.squares import BLOCK, Squares
from tests.engine.shards import vector

SIZE = 3 * BLOCK + 5
GRADIENT = vector(SIZE, 1)


def arrive(squares: Squares, num_bytes: list[int]) -> None:
    for count in [0, *sorted(num_bytes), SIZE * 4]:
        squares.advance(count)


@given(st.lists(st.integers(0, SIZE * 4), max_size=9))
def test_any_pieces_give_the_sum_of_the_whole(pieces):
    squares, at_once = Squares(GRADIENT), Squares(GRADIENT)
    arrive(squares, pieces)
    arrive(at_once, [])
    assert squares.total == at_once.total
    expected = float(GRADIENT.double().square().sum())
    assert squares.total == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("place", [0, BLOCK - 1, BLOCK, 3 * BLOCK, SIZE - 1])
def test_one_value_that_is_not_finite_shows_wherever_it_is(place):
    grad = GRADIENT.clone()
    grad[place] = math.nan
    squares = Squares(grad)
    arrive(squares, [BLOCK * 4, BLOCK * 8])
    assert squares.total is not None
    assert math.isnan(squares.total)


def test_half_a_gradient_has_no_sum_and_the_next_one_starts_at_nought():
    grad = torch.full((SIZE,), math.nan)
    squares = Squares(grad)
    arrive(squares, [])
    assert squares.total is not None
    squares.advance(0)
    grad.fill_(2.0)
    squares.advance(SIZE * 4 - 1)
    assert squares.total is None
    squares.advance(SIZE * 4)
    assert squares.total == 4.0 * SIZE
