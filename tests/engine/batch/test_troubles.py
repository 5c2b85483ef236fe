"""Losses that are not finite, curvature that is not there, searches that find nothing."""

import math

import pytest
import torch
from torch import Tensor

from engine.batch.config import (
    ArmijoConfig,
    ConjugateConfig,
    DescentConfig,
    LbfgsConfig,
    OptimiserConfig,
    WolfeConfig,
)
from engine.batch.iterate import Outcome
from engine.batch.loop import Record
from engine.batch.minimise import minimise
from tests.engine.batch.optimisers import EXACT, zeros


def barrier(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
    """10 x0 - log(1 - |x|^2): NaN outside the unit ball, minimum at 10 x0 = 1 - sqrt 101."""
    room = 1 - x.dot(x)
    if grad is not None:
        torch.mul(x, 2 / room, out=grad)
        grad[0] += 10
    return float(10 * x[0] - torch.log(room))


@pytest.mark.parametrize(
    "config",
    [
        LbfgsConfig(**EXACT),
        LbfgsConfig(line_search=ArmijoConfig(), **EXACT),
        ConjugateConfig(**EXACT),
    ],
)
def test_a_nan_loss_halves_the_step_and_is_counted(config):
    start = torch.tensor([-0.1, 0.1, 0.0], dtype=torch.float64)
    best = minimise(barrier, start, config)
    assert best.solution.outcome is Outcome.GRADIENT
    assert best.solution.iterate.counts["halved"] >= 1
    expected = torch.tensor([(1 - math.sqrt(101)) / 10, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(best.point, expected, rtol=0, atol=1e-8)


def test_a_gradient_that_is_not_finite_counts_as_a_loss_that_is_not():
    def objective(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
        if grad is not None:
            torch.mul(x, 2, out=grad)
            if float(x[0]) < 0.5:
                grad[1] = math.inf
        return float(x.dot(x))

    for search in (WolfeConfig(), ArmijoConfig()):
        best = minimise(
            objective, torch.ones(2, dtype=torch.float64), LbfgsConfig(line_search=search)
        )
        assert best.solution.outcome is Outcome.LINE_SEARCH
        assert best.solution.iterate.counts["halved"] >= 1
        assert float(best.point[0]) >= 0.5


def waves(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
    """Sum of cos: half of every period has no positive curvature."""
    if grad is not None:
        torch.neg(torch.sin(x), out=grad)
    return float(torch.cos(x).sum())


@pytest.mark.parametrize("form", ["gram", "two_loop"])
def test_a_pair_without_curvature_is_skipped_and_counted(form):
    records: list[Record] = []
    start = torch.tensor([0.3, 0.35], dtype=torch.float64)
    config = LbfgsConfig(form=form, line_search=ArmijoConfig(), **EXACT)
    best = minimise(waves, start, config, records.append)
    assert best.solution.outcome is Outcome.GRADIENT
    assert best.solution.iterate.counts["skipped"] >= 1
    skipped = [record["iterate"]["counts"]["skipped"] for record in records[1:]]
    assert skipped[0] == 1
    assert records[1]["memory"]["slots"] == ()
    assert torch.cos(best.point).tolist() == pytest.approx([-1, -1])


@pytest.mark.parametrize("kind", [LbfgsConfig, ConjugateConfig])
def test_an_objective_with_a_wrong_gradient_ends_in_a_failed_search(kind):
    def uphill(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
        if grad is not None:
            torch.mul(x, -1, out=grad)
        return float(x.dot(x) / 2)

    start = torch.ones(3, dtype=torch.float64)
    best = minimise(uphill, start, kind())
    assert best.solution.outcome is Outcome.LINE_SEARCH
    assert best.solution.iterate.iteration == 0
    assert torch.equal(best.point, start)


def test_a_failed_search_drops_the_history_and_tries_once_more():
    calls = [0]

    def lies_once(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
        calls[0] += 1
        if grad is not None:
            torch.mul(x, torch.tensor([1.0, 30.0, 900.0], dtype=x.dtype), out=grad)
        weights = torch.tensor([1.0, 30.0, 900.0], dtype=x.dtype)
        return float((weights * x * x).sum() / 2) + (1e6 if 8 < calls[0] < 39 else 0.0)

    config = LbfgsConfig(line_search=ArmijoConfig(max_trials=30), **EXACT)
    best = minimise(lies_once, torch.ones(3, dtype=torch.float64), config)
    assert best.solution.outcome is Outcome.GRADIENT
    assert best.solution.iterate.counts["resets"] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("config", [LbfgsConfig(), ConjugateConfig(), DescentConfig()])
def test_a_start_that_is_not_finite_ends_at_once(config: OptimiserConfig, bad: float):
    def objective(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
        if grad is not None:
            grad.zero_()
        return bad

    assert minimise(objective, zeros(2), config).solution.outcome is Outcome.NOT_FINITE


def test_descent_that_diverges_says_so():
    best = minimise(barrier, torch.full((3,), 0.5, dtype=torch.float64), DescentConfig())
    assert best.solution.outcome is Outcome.NOT_FINITE


def test_the_loss_tolerance_and_the_iteration_limit_end_a_run():
    start = torch.tensor([0.5, 0.4, 0.1], dtype=torch.float64)
    loose = LbfgsConfig(loss_tolerance=0.1, gradient_tolerance=0.0)
    best = minimise(barrier, start, loose)
    assert best.solution.outcome is Outcome.LOSS
    change = best.solution.iterate.change
    assert change is not None
    assert 0 <= change < 0.1
    limited = minimise(barrier, start, LbfgsConfig(max_iterations=2, gradient_tolerance=0.0))
    assert limited.solution.outcome is Outcome.ITERATIONS
    assert limited.solution.iterate.iteration == 2


def test_single_precision_vectors_reach_single_precision():
    def objective(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
        weights = torch.logspace(0, 3, len(x))
        if grad is not None:
            torch.mul(weights, x - 1, out=grad)
        return float((weights * (x - 1) ** 2).sum() / 2)

    best = minimise(objective, torch.zeros(20), LbfgsConfig(gradient_tolerance=1e-3))
    assert best.solution.outcome is Outcome.GRADIENT
    assert float((best.point - 1).abs().max()) < 1e-3
