"""Plain stochastic gradient descent."""

from collections.abc import Sequence

from torch import Tensor

from engine.config import SgdConfig
from engine.rules.rule import decayed


class Sgd:
    slots: tuple[str, ...] = ()

    def __init__(self, config: SgdConfig) -> None:
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
        grad = decayed(grad, values, self._config.weight_decay, scratch)
        values.add_(grad, alpha=-self._config.learning_rate * scale)
