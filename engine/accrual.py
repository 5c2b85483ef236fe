"""Where a replica's gradients accrue until they are pushed."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from engine.pinned import Pinned


class Accrual:
    """The sum of the gradients since the last push.

    It grows in the slot that will be pushed, unless a GPU computes several gradients a push: then
    it grows there, where adding costs a hundredth, and comes to the slot once.
    """

    def __init__(self, slots: Sequence[Tensor], device: torch.device, n_push: int) -> None:
        """Prepare a sum.

        Args:
            slots: all slots that it may be asked to fill, shape (P,) each.
            device: where gradients are computed.
        """
        self._apart = device.type != "cpu" and n_push > 1
        self._pinned = [Pinned(slot) for slot in slots] if self._apart else []
        self._like = slots[0].new_empty(0, device=device if self._apart else None)
        self._size = len(slots[0])
        self._sum = self._spare = self._like

    def add(
        self, slot: Tensor, compute: Callable[[Tensor], float], *, first: bool
    ) -> tuple[float, Tensor]:
        """Add one more gradient; with `first` to nothing.

        Args:
            compute: overwrites the vector it is given, shape (P,), with the gradient.

        Returns:
            what `compute` returns, and the gradient alone.
        """
        total = self._total() if self._apart else slot
        grad = total if first else self._second()
        result = compute(grad)
        if not first:
            total.add_(grad)
        return result, grad

    def finish(self, slot: Tensor) -> None:
        """Have the sum in `slot`."""
        if self._apart:
            slot.copy_(self._sum)

    def _total(self) -> Tensor:
        if not self._sum.numel():
            self._sum = self._like.new_empty(self._size)
        return self._sum

    def _second(self) -> Tensor:
        if not self._spare.numel():
            self._spare = self._like.new_empty(self._size)
        return self._spare
