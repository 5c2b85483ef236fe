"""SGD with momentum, as torch.optim.SGD writes it."""

from collections.abc import Sequence

from torch import Tensor

from engine.config import MomentumConfig
from engine.rules.rule import decayed


class Momentum:
    slots: tuple[str, ...] = ("velocity",)

    def __init__(self, config: MomentumConfig) -> None:
        self._config = config

    def apply_(
        self, values: Tensor, slots: Sequence[Tensor], grad: Tensor, scratch: Tensor, scale: float
    ) -> None:
        (velocity,) = slots
        grad = decayed(grad, values, self._config.weight_decay, scratch)
        velocity.mul_(self._config.momentum).add_(grad)
        values.add_(velocity, alpha=-self._config.learning_rate * scale)
