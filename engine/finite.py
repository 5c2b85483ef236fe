"""Where a baseline stops whose numbers are lost: on shards `engine.push_limits` sees to it."""

import math

import torch
from torch import Tensor

from engine.instructions import RunFailedError

_REMEDY = (
    "training has diverged, or the data holds such numbers; the newest checkpoint is from before. "
    "Lower the learning rate of algorithm.rule, or bound gradients by algorithm.clip"
)


def require_finite_loss(loss: float, step: int) -> None:
    """Refuse to go on from a loss that is no number.

    Raises:
        RunFailedError: with the step, and what to do.
    """
    if not math.isfinite(loss):
        raise RunFailedError(f"step {step}: the loss is {loss}: {_REMEDY}")


def require_finite_parameters(parameters: Tensor, step: int) -> None:
    """Refuse to keep parameters that are no numbers.

    Raises:
        RunFailedError: with the step, and what to do.
    """
    if not torch.isfinite(parameters).all():
        bad = int((~torch.isfinite(parameters)).sum())
        raise RunFailedError(
            f"step {step}: {bad} of {parameters.numel()} parameters are NaN or infinite: {_REMEDY}"
        )
