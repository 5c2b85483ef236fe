"""Functions to minimise, in double precision: a valley, a bad condition, real data."""

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor
from torch.nn import functional

from engine.batch.minimise import Objective
from engine.batch.program import Span


def rosenbrock(x: Tensor, grad: Tensor | None, samples: Span | None = None) -> float:
    """Sum of 100 (x[i+1] - x[i]^2)^2 + (1 - x[i])^2; the minimum is 0 at (1, ..., 1)."""
    a, b = x[:-1], x[1:]
    if grad is not None:
        grad.zero_()
        grad[:-1] = -400 * a * (b - a**2) - 2 * (1 - a)
        grad[1:] += 200 * (b - a**2)
    return float((100 * (b - a**2) ** 2 + (1 - a) ** 2).sum())


def valley() -> Tensor:
    """Rosenbrock's start, ten times."""
    return torch.tensor([-1.2, 1.0] * 5, dtype=torch.float64)


def quadratic(x: Tensor, grad: Tensor | None, samples: Span | None = None) -> float:
    """Half the squares of x - 1, weighted from 1 to 1e4: condition 1e4."""
    weights = torch.logspace(0, 4, len(x), dtype=x.dtype)
    if grad is not None:
        torch.mul(weights, x - 1, out=grad)
    return float((weights * (x - 1) ** 2).sum() / 2)


@cache
def breast_cancer() -> tuple[Tensor, Tensor]:
    """Standardised measurements (569, 30) and labels -1 or 1, in a shuffled order."""
    x, y = load_breast_cancer(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x = ((x - x.mean(0)) / x.std(0))[order]
    return torch.from_numpy(x), torch.from_numpy(np.where(y == 1, 1.0, -1.0)[order])


@cache
def odd_digits() -> tuple[Tensor, Tensor]:
    """Pixels (1797, 64) from 0 to 1 of handwritten digits, and 1 for odd ones, -1 for even ones."""
    x, y = load_digits(return_X_y=True)
    return torch.from_numpy(x / 16), torch.from_numpy(2.0 * (y % 2) - 1)


def logistic(data: tuple[Tensor, Tensor], l2: float) -> Objective:
    """Mean logistic loss plus l2 / 2 |w|^2."""
    points, labels = data

    def objective(w: Tensor, grad: Tensor | None, samples: Span | None = None) -> float:
        rows = slice(*(samples or (0, len(labels))))
        x, y = points[rows], labels[rows]
        margins = y * (x @ w)
        if grad is not None:
            grad.copy_(x.T @ (-y * torch.sigmoid(-margins)) / len(y) + l2 * w)
        return float(functional.softplus(-margins).mean() + l2 / 2 * w.dot(w))

    return objective
