"""The sum of a gradient's squares, formed while the gradient arrives and lies in the cache.

It is finite if all values are, unless it overflows; and it is the norm's square.
"""

from typing import NamedTuple

import torch
from isal.isal_zlib import crc32
from torch import Tensor

from engine.frames import as_bytes

#: Values whose squares are summed at a time, whatever pieces they come in.
BLOCK = 1 << 16

#: Values that are read twice in a row; half of a large L2 cache.
_CACHED = 1 << 17


class Examined(NamedTuple):
    """What one walk over a gradient tells."""

    squares: float  # their sum
    checksum: int  # CRC-32 of its bytes


def examined(grad: Tensor) -> Examined:
    """Walk over `grad`, shape (count,), once for both: it comes from memory, which is slow."""
    squares, checksum = 0.0, 0
    for start in range(0, grad.numel(), _CACHED):
        block = grad[start : start + _CACHED]
        squares += float(torch.dot(block, block))
        checksum = crc32(as_bytes(block), checksum)
    return Examined(squares, checksum)


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
