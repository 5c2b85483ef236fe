"""The sum of a gradient's squares, formed while the gradient arrives and lies in the cache.

It is finite if all values are, unless it overflows; and it is the norm's square.
"""

import torch
from torch import Tensor

#: Values whose squares are summed at a time, whatever pieces they come in.
BLOCK = 1 << 16


class Squares:
    """Those of one gradient after the other, all in the same memory."""

    def __init__(self, grad: Tensor) -> None:
        """Look at `grad`, shape (count,), whenever it is said to have arrived."""
        self._grad = grad
        self._num_summed = 0
        self._sum = 0.0

    def advance(self, num_bytes: int) -> None:
        """So much of the gradient lies in its memory by now; less than before: of another one."""
        count = num_bytes // self._grad.itemsize
        if count < self._num_summed:
            self._num_summed, self._sum = 0, 0.0
        whole = count == self._grad.numel()
        while self._num_summed + BLOCK <= count or (whole and self._num_summed < count):
            block = self._grad[self._num_summed : self._num_summed + BLOCK]
            self._sum += float(torch.dot(block, block))
            self._num_summed += block.numel()

    @property
    def total(self) -> float | None:
        """The sum over the whole gradient; None if not all of it has arrived."""
        return self._sum if self._num_summed == self._grad.numel() else None
