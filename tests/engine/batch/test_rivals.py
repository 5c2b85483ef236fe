"""L-BFGS against scipy's and torch's on the same problems, in double precision."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import optimize
from torch import Tensor

from engine.batch.config import LbfgsConfig, WolfeConfig
from engine.batch.iterate import Outcome
from engine.batch.local import LocalStore
from engine.batch.minimise import Objective, drive, minimise
from engine.batch.names import START
from tests.engine.batch.objectives import (
    breast_cancer,
    logistic,
    odd_digits,
    quadratic,
    rosenbrock,
    valley,
)


def scaled(objective: Objective, factor: float) -> Objective:
    """`factor` times the objective: with a gradient above 1 first steps agree with scipy's."""

    def times(x: Tensor, grad: Tensor | None, samples: object = None) -> float:
        loss = factor * objective(x, grad, None)
        if grad is not None:
            grad.mul_(factor)
        return loss

    return times


def zeros(size: int) -> Callable[[], Tensor]:
    return lambda: torch.zeros(size, dtype=torch.float64)


PROBLEMS: dict[str, tuple[Objective, Callable[[], Tensor]]] = {
    "rosenbrock": (rosenbrock, valley),
    "quadratic": (quadratic, zeros(10)),
    "breast cancer": (scaled(logistic(breast_cancer(), 1e-2), 569), zeros(30)),
    "odd digits": (scaled(logistic(odd_digits(), 1e-2), 1797), zeros(64)),
}


def ours(objective: Objective, initial: Tensor, config: LbfgsConfig) -> list[np.ndarray]:
    """All iterates, the initial point first."""
    store, iterates = LocalStore(**{START: initial}), []
    drive(
        store,
        objective,
        config,
        None,
        lambda record: iterates.append(store.vectors[record["iterate"]["point"]].numpy().copy()),
    )
    return iterates


def theirs(objective: Objective, initial: Tensor, history_length: int) -> list[np.ndarray]:
    """scipy's iterates, the initial point first."""

    def loss_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        grad = torch.empty(len(x), dtype=torch.float64)
        return objective(torch.from_numpy(x.copy()), grad, None), grad.numpy()

    iterates = [initial.numpy()]
    optimize.minimize(
        loss_and_gradient,
        initial.numpy(),
        jac=True,
        method="L-BFGS-B",
        callback=lambda x: iterates.append(x.copy()),
        options={"maxcor": history_length, "ftol": 0.0, "gtol": 1e-5},
    )
    return iterates


@pytest.mark.parametrize("form", ["gram", "two_loop"])
@pytest.mark.parametrize("history_length", [3, 10])
@pytest.mark.parametrize("name", PROBLEMS)
def test_iterates_are_those_of_scipy(name, history_length, form):
    objective, initial = PROBLEMS[name]
    config = LbfgsConfig(
        form=form,
        history_length=history_length,
        line_search=WolfeConfig(c1=1e-3, c2=0.9, interval_tolerance=0.1),  # scipy's
        loss_tolerance=0.0,
    )
    mine, rival = ours(objective, initial(), config), theirs(objective, initial(), history_length)
    # Rounding differs, and the problem amplifies it from step to step.
    num_equal = min(25, len(rival) - 1)
    np.testing.assert_allclose(mine[:num_equal], rival[:num_equal], rtol=0, atol=1e-10)
    np.testing.assert_allclose(mine[-1], rival[-1], atol=1e-5)
    assert abs(len(mine) - len(rival)) <= 0.2 * len(rival)


MEAN_LOSSES = {
    **{name: PROBLEMS[name] for name in ("rosenbrock", "quadratic")},
    "breast cancer": (logistic(breast_cancer(), 0.1), zeros(30)),
    "odd digits": (logistic(odd_digits(), 0.1), zeros(64)),
}


@pytest.mark.parametrize("name", MEAN_LOSSES)
def test_the_optimum_is_that_of_torch(name):
    objective, initial = MEAN_LOSSES[name]
    x = initial().requires_grad_()
    rival = torch.optim.LBFGS(
        [x],
        max_iter=2000,
        history_size=10,
        tolerance_grad=1e-11,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        x.grad = torch.empty_like(x)
        return objective(x.detach(), x.grad, None)

    rival.step(closure)
    config = LbfgsConfig(loss_tolerance=0.0, gradient_tolerance=1e-11)
    best = minimise(objective, initial(), config)
    assert best.solution.outcome is Outcome.GRADIENT
    np.testing.assert_allclose(best.point, x.detach(), rtol=0, atol=1e-7)  # torch is 1e-8 off
