"""The paper's rule has no epsilon: ours must not be seen, and must not harm."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.config import AdagradConfig
from engine.rules import make_rule
from engine.rules.adagrad import vanishing_epsilon
from tests.engine.shards import apply_

DTYPES = (torch.float32, torch.float64)
GAMMA = 0.25


def one_step(grad: Tensor, squares: Tensor) -> Tensor:
    """What the rule adds to parameters that are 0."""
    values = torch.zeros_like(grad)
    apply_(make_rule(AdagradConfig(gamma=GAMMA)), values, [squares], grad)
    return values


def powers(lowest: float, highest: float, dtype: torch.dtype) -> Tensor:
    exponents = torch.linspace(lowest, highest, 4096, dtype=torch.float64)
    return torch.exp2(exponents).to(dtype)


def least(dtype: torch.dtype) -> float:
    number = torch.finfo(dtype)
    return number.smallest_normal * number.eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_parameter_whose_gradients_were_all_zero_takes_no_step(dtype):
    assert not one_step(torch.zeros(4096, dtype=dtype), torch.zeros(4096, dtype=dtype)).any()


@pytest.mark.parametrize(("dtype", "lowest"), [(torch.float32, -50), (torch.float64, -483)])
def test_every_bit_is_that_of_the_rule_without_epsilon_above_a_vanishing_sum(dtype, lowest):
    squares = powers(2 * lowest, 60, dtype)
    for relative in (0.0, 1e-6, 1.0, 1e6):
        grad = squares.sqrt() * relative
        summed = squares.clone()
        step = one_step(grad, summed)
        without = torch.zeros_like(grad)
        torch._fused_adagrad_(
            [without],
            [grad],
            [squares.clone()],
            [torch.ones(())],
            lr=GAMMA,
            lr_decay=0.0,
            weight_decay=0.0,
            eps=0.0,
            maximize=False,
        )
        assert torch.equal(step, without)
        roots = np.sqrt(summed.numpy())
        assert (roots + roots.dtype.type(vanishing_epsilon(roots.dtype)) == roots).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_first_step_is_longer_than_gamma_even_where_the_square_underflows(dtype):
    grad = powers(math.log2(least(dtype)), 0, dtype)
    assert (grad.square() == 0).any()
    assert ((grad.square() > 0) & (grad.square() < torch.finfo(dtype).smallest_normal)).any()
    steps = one_step(grad, torch.zeros_like(grad))
    assert torch.isfinite(steps).all()
    assert steps.abs().max() <= GAMMA * (1 + 1e-6)
    # a third of the paper's step at least, down to the least square that is not 0
    assert (steps.abs() >= GAMMA / 3)[grad.square() > 0].all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_zero_gradient_moves_nothing_whatever_the_sum(dtype):
    squares = torch.tensor([0.0, least(dtype), 1.0, 1e30], dtype=dtype)
    assert not one_step(torch.zeros(4, dtype=dtype), squares).any()
