"""The paper's rule on the shard: Adagrad (Dean et al. 2012, section 4.1)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config import AdagradConfig

_FIRST_STEP = torch.ones(())  # the kernel decays the rate by the step, ours does not decay


class Adagrad:
    """eta(i, K) = gamma / sqrt(sum over j <= K of dw(i, j)^2), in one pass over the memory."""

    slots: tuple[str, ...] = ("squares",)

    def __init__(self, config: AdagradConfig) -> None:
        self._config = config

    def apply_(
        self,
        values: Tensor,
        slots: Sequence[Tensor],
        grad: Tensor,
        scratch: Tensor,
        scale: float,
        step: int,
    ) -> None:
        torch._fused_adagrad_(
            [values],
            [grad],
            list(slots),
            [_FIRST_STEP],
            lr=self._config.gamma * scale,
            lr_decay=0.0,
            weight_decay=self._config.weight_decay,
            eps=self._config.epsilon or vanishing_epsilon(values.dtype),
            maximize=False,
        )


def vanishing_epsilon(dtype: torch.dtype) -> float:
    """What is added to the root in place of the paper's nothing: the root of the least number.

    It makes 0/0 no step. It is lost in rounding, so every bit is that of the paper's rule, once a
    parameter's root of summed squares is 1e-15 (float32; 1e-145 in float64). And it bounds the
    step by gamma where the square of a gradient underflows to 0, as the paper's rule has it:
    dividing that gradient by 0, or by the least normal number, would destroy the parameter.
    """
    number = torch.finfo(dtype)
    return math.sqrt(number.smallest_normal * number.eps)
