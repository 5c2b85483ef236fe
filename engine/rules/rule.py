"""What a parameter shard asks of an update rule."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class UpdateRule(Protocol):
    """How a gradient changes parameters. Elementwise: any block may be updated on its own.

    Blocks should begin at multiples of `engine.layout.ALIGNMENT`, as those of shards do: torch's
    fused kernels round the last elements of a tensor, which fill no vector register, otherwise.
    """

    #: Names of the state vectors ("slots") that it keeps beside the parameters, all starting at 0.
    slots: tuple[str, ...]

    def apply_(
        self,
        values: Tensor,
        slots: Sequence[Tensor],
        grad: Tensor,
        scratch: Tensor,
        scale: float,
        step: int,
    ) -> None:
        """Update `values` and `slots` in place; `grad` is only read. All are (block,).

        Args:
            scratch: memory of the same shape, overwritten.
            scale: factor on the configured rate, from the learning-rate schedule.
            step: how many updates these parameters have had when this one is done.
        """
        ...


def decayed(grad: Tensor, values: Tensor, weight_decay: float, scratch: Tensor) -> Tensor:
    """grad + weight_decay * values, in `scratch`; `grad` itself when there is no decay."""
    if not weight_decay:
        return grad
    return torch.add(grad, values, alpha=weight_decay, out=scratch)
