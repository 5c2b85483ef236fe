"""Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW writes it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config import AdamWConfig


class AdamW:
    """One pass over the memory with torch's fused kernel.

    The bias correction goes by the updates of the shard, whichever replicas they came from. They
    are the shard's version, so nothing more has to survive a kill.
    """

    slots: tuple[str, ...] = ("mean", "mean_square")

    def __init__(self, config: AdamWConfig) -> None:
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
        mean, mean_square = slots
        torch._fused_adamw_(
            [values],
            [grad],
            [mean],
            [mean_square],
            [],
            [torch.tensor(float(step))],
            lr=self._config.learning_rate * scale,
            beta1=self._config.beta1,
            beta2=self._config.beta2,
            weight_decay=self._config.weight_decay,
            eps=self._config.epsilon,
            amsgrad=False,
            maximize=False,
        )
