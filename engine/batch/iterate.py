"""Where an optimisation stands and how it ended: plain data that goes through JSON unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite

from engine.batch.config import BatchConfig


class Outcome(StrEnum):
    """Why an optimisation ended."""

    GRADIENT = "gradient tolerance reached"
    LOSS = "loss tolerance reached"
    ITERATIONS = "maximum number of iterations reached"
    LINE_SEARCH = "line search failed"
    NOT_FINITE = "loss or gradient not finite"


@dataclass(frozen=True, kw_only=True)
class Iterate:
    """A point that the optimiser has accepted, by the names of its vectors."""

    iteration: int
    point: str
    grad: str
    loss: float  # of the objective: with the l1 term, if there is one
    gradient_norm: float  # largest absolute element; of the pseudo-gradient under an l1 term
    step_length: float = 0.0  # that led here; 0 at the start
    change: float | None = None  # fall of the loss in this iteration / max(1, both losses)
    #: What happened so far: gradients, losses (evaluations without gradient), halved (steps to
    #: where the loss was not finite), skipped (pairs without curvature), resets (of the history).
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Solution:
    """How an optimisation ended, and the last point that it accepted."""

    outcome: Outcome
    iterate: Iterate


def relative_change(before: float, after: float) -> float:
    """(before - after) / max(|before|, |after|, 1), as scipy's L-BFGS-B measures it."""
    return (before - after) / max(abs(before), abs(after), 1.0)


def outcome(at: Iterate, config: BatchConfig) -> Outcome | None:
    """Whether, and why, to stop at `at`."""
    if not (isfinite(at.loss) and isfinite(at.gradient_norm)):
        return Outcome.NOT_FINITE
    if at.gradient_norm <= config.gradient_tolerance:
        return Outcome.GRADIENT
    if at.change is not None and abs(at.change) < config.loss_tolerance:
        return Outcome.LOSS
    return Outcome.ITERATIONS if at.iteration >= config.max_iterations else None
