"""RMSProp, as torch.optim.RMSprop writes it (Tieleman & Hinton 2012, lecture 6.5)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config import RmspropConfig


class Rmsprop:
    slots: tuple[str, ...] = ("mean_square",)

    def __init__(self, config: RmspropConfig) -> None:
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
        (mean_square,) = slots
        if self._config.weight_decay:
            grad = grad.add(values, alpha=self._config.weight_decay)
        smoothing = self._config.smoothing
        mean_square.mul_(smoothing).addcmul_(grad, grad, value=1 - smoothing)
        root = torch.sqrt(mean_square, out=scratch).add_(self._config.epsilon)
        values.addcdiv_(grad, root, value=-self._config.learning_rate * scale)
