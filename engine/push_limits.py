"""Which gradients a shard takes: finite ones of its own shape, neither too stale nor too large."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.push import (
    HugePushError,
    MisshapenPushError,
    NonFinitePushError,
    Push,
    StalePushError,
)


@dataclass(frozen=True)
class PushLimits:
    """What the run allows: staleness in updates, Euclidean norm of a slice; None: any."""

    max_staleness: int | None
    max_norm: float | None

    def check(
        self, push: Push, grad: Tensor, staleness: int, like: Tensor, squares: float | None = None
    ) -> None:
        """Raise what refuses this gradient for a slice `like` that, if anything does.

        Args:
            squares: the sum of `grad`'s squares, where it is known already.

        Raises:
            PushRefusedError: a subclass says why.
        """
        if grad.shape != like.shape or grad.dtype != like.dtype:
            raise MisshapenPushError(
                f"pushed gradient is {tuple(grad.shape)} {grad.dtype}, the shard holds "
                f"{tuple(like.shape)} {like.dtype}: "
                "replica and shard were built from different layouts"
            )
        if self.max_staleness is not None and staleness > self.max_staleness:
            raise StalePushError(
                f"push is {staleness} updates stale, max_staleness={self.max_staleness}"
            )
        # It reads memory faster than the values' sum does.
        self._check_values(push, grad, float(torch.dot(grad, grad)) if squares is None else squares)

    def _check_values(self, push: Push, grad: Tensor, squares: float) -> None:
        # g.g is finite when all values are, unless it overflows: only then look at each.
        if not math.isfinite(squares) and not torch.isfinite(grad).all():
            bad = int((~torch.isfinite(grad)).sum())
            raise NonFinitePushError(
                f"replica {push.replica}, push {push.sequence}: {bad} of {grad.numel()} gradient "
                "values are NaN or infinite; shard left unchanged"
            )
        if self.max_norm is not None and squares > self.max_norm**2:
            raise HugePushError(
                f"replica {push.replica}, push {push.sequence}: its slice of the gradient has norm "
                f"{_norm(grad):.3g}, max_push_norm={self.max_norm:g}; shard left unchanged"
            )


def _norm(grad: Tensor) -> float:
    """In double precision, in which the squares of float32 do not overflow."""
    return float(torch.linalg.vector_norm(grad, dtype=torch.float64))
