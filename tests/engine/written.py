"""The classifier as a problem that is no torch module to the engine."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from engine.ledger import Lease
from engine.problem import Minibatch
from tests.engine.problems import UNIT_SIZES, classifier


class ByHand:
    """Hands out the classifier's gradients as if they were written by hand."""

    unit_sizes = UNIT_SIZES

    def __init__(self) -> None:
        self._inner = classifier()
        self.layout = self._inner.layout

    def initial(self) -> Tensor:
        return self._inner.initial()

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        return self._inner.minibatches(lease, size)

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor) -> float:
        return self._inner.gradient_(parameters, payload, grad)

    def validate(self, parameters: Tensor) -> dict[str, float]:
        return self._inner.validate(parameters)


def by_hand() -> ByHand:
    """A factory that a worker process can import."""
    return ByHand()
