"""Every optimiser: where it ends and what it costs."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.batch.config import (
    ConjugateConfig,
    DescentConfig,
    LbfgsConfig,
    OptimiserConfig,
    WolfeConfig,
)
from engine.batch.iterate import Outcome
from engine.batch.local import LocalStore
from engine.batch.methods import vector_names
from engine.batch.minimise import drive, minimise
from engine.batch.names import START
from tests.engine.batch.objectives import breast_cancer, quadratic, rosenbrock, valley
from tests.engine.batch.optimisers import EVERY, EXACT, LBFGS, REAL, SMOOTH, zeros


@pytest.fixture(scope="module")
def optimum() -> Tensor:
    """By Newton's method, on `REAL`."""
    x, y = breast_cancer()
    w = zeros(30)
    for _ in range(20):
        p = torch.sigmoid(-y * (x @ w))
        grad = x.T @ (-y * p) / len(y) + 0.1 * w
        w = w - torch.linalg.solve((x.T * (p * (1 - p))) @ x / len(y) + 0.1 * torch.eye(30), grad)
    return w


@pytest.mark.parametrize("name", SMOOTH)
def test_every_optimiser_finds_the_optimum_of_a_logistic_regression(name, optimum):
    best = minimise(REAL, zeros(30), SMOOTH[name])
    assert best.solution.outcome is Outcome.GRADIENT
    torch.testing.assert_close(best.point, optimum, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("objective", "initial"),
    [(rosenbrock, valley()), (quadratic, zeros(10))],
    ids=["valley", "bad"],
)
@pytest.mark.parametrize("name", [*LBFGS, "conjugate"])
def test_line_search_methods_find_the_bottom_of_narrow_valleys(name, objective, initial):
    best = minimise(objective, initial, SMOOTH[name])
    assert best.solution.outcome is Outcome.GRADIENT
    torch.testing.assert_close(best.point, torch.ones_like(initial), rtol=0, atol=1e-8)


@settings(max_examples=40)
@given(
    name=st.sampled_from(["lbfgs", "two loops", "backtracking", "conjugate"]),
    size=st.integers(1, 8),
    seed=st.integers(0, 10_000),
    condition=st.floats(1, 1e4),
)
def test_line_search_methods_solve_random_quadratics(name, size, seed, condition):
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))[0]
    matrix = axes @ torch.diag(torch.logspace(0, math.log10(condition), size).double()) @ axes.T
    solution = torch.randn(size, generator=generator, dtype=torch.float64)

    def objective(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
        product = matrix @ (x - solution)
        if grad is not None:
            grad.copy_(product)
        return float(product.dot(x - solution) / 2)

    best = minimise(objective, zeros(size), SMOOTH[name])
    assert best.solution.outcome is Outcome.GRADIENT
    torch.testing.assert_close(best.point, solution, rtol=0, atol=1e-7)


def test_descent_takes_the_steps_of_torch():
    x = zeros(30).requires_grad_()
    rival = torch.optim.SGD([x], lr=0.3, momentum=0.8)
    for _ in range(40):
        x.grad = torch.empty_like(x)
        REAL(x.detach(), x.grad, None)
        rival.step()
    config = DescentConfig(learning_rate=0.3, momentum=0.8, max_iterations=40, loss_tolerance=0.0)
    assert torch.equal(minimise(REAL, zeros(30), config).point, x.detach())


def test_conjugate_gradients_solve_a_quadratic_in_as_many_steps_as_it_has_eigenvalues():
    def objective(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
        weights = torch.tensor([1.0, 1.0, 5.0, 5.0, 30.0], dtype=x.dtype)
        if grad is not None:
            torch.mul(weights, x - 1, out=grad)
        return float((weights * (x - 1) ** 2).sum() / 2)

    exact = WolfeConfig(c1=1e-4, c2=1e-3, interval_tolerance=0.0)
    config = ConjugateConfig(line_search=exact, gradient_tolerance=1e-2, loss_tolerance=0.0)
    best = minimise(objective, zeros(5), config)
    assert best.solution.outcome is Outcome.GRADIENT
    assert best.solution.iterate.iteration == 3


def costs(config: OptimiserConfig) -> list[tuple[int, int]]:
    """Round trips and evaluations of each iteration on `REAL`."""
    store, calls, rows = LocalStore(**{START: zeros(30)}), [0], []

    def counted(*arguments: Any) -> float:
        calls[0] += 1
        return REAL(*arguments)

    drive(store, counted, config, None, lambda _: rows.append((store.num_round_trips, calls[0])))
    return [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(rows)]


def test_an_iteration_takes_two_round_trips_for_each_trial_point():
    for config in (LbfgsConfig(**EXACT), ConjugateConfig(**EXACT)):
        rows = costs(config)
        assert all(num_trips == 2 * num_trials for num_trips, num_trials in rows)
    assert sum(num_trials == 1 for _, num_trials in costs(LbfgsConfig(**EXACT))) > 0.7 * len(rows)


def test_the_two_loop_form_takes_two_round_trips_more_for_each_pair():
    for k, (num_trips, num_trials) in enumerate(costs(LBFGS["two loops"])):
        assert num_trips == 2 * num_trials + 2 * min(k, 3) + 1


@pytest.mark.parametrize("name", EVERY)
def test_no_vector_is_used_that_was_not_announced(name):
    store = LocalStore(**{START: zeros(30)})
    drive(store, REAL, EVERY[name], None, lambda record: None)
    assert set(store.vectors) <= set(vector_names(EVERY[name]))
