"""How optimisers begin: the initial point, and the first step along a gradient."""

from collections import Counter
from math import sqrt

from engine.batch.iterate import Iterate
from engine.batch.names import START
from engine.batch.program import Ask, evaluate, run
from engine.batch.vector import MaxAbs, dot

#: The gradient at the initial point.
GRAD = "grad0"


def start_smooth(counts: Counter[str]) -> Ask[tuple[Iterate, float]]:
    """Evaluate the initial point; returns also g . g there."""
    loss = yield from evaluate(START, GRAD)
    counts["gradients"] += 1
    norm, square = yield from run(MaxAbs(GRAD), dot(GRAD, GRAD))
    return Iterate(iteration=0, point=START, grad=GRAD, loss=loss, gradient_norm=norm), square


def first_step(square: float) -> float:
    """Step length for a direction of steepest descent with g . g = `square`: at most |g| long.

    scipy's L-BFGS-B begins with a step of length 1 instead, which throws away a point that is
    nearly optimal already; the two agree where |g| is above 1.
    """
    return min(1.0, 1.0 / sqrt(square))
