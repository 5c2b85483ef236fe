"""SGD with momentum, classical or Nesterov's, as torch.optim.SGD writes it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config import MomentumConfig


class Momentum:
    """One pass over the memory with torch's fused kernel."""

    slots: tuple[str, ...] = ("velocity",)

    def __init__(self, config: MomentumConfig) -> None:
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
        torch._fused_sgd_(
            [values],
            [grad],
            list(slots),
            weight_decay=self._config.weight_decay,
            momentum=self._config.momentum,
            lr=self._config.learning_rate * scale,
            dampening=0.0,
            nesterov=self._config.nesterov,
            maximize=False,
            is_first_step=False,  # a velocity of 0 makes the first step no exception
        )
