"""A replica's vectors in a memory file that the shards of the same host map too.

    nonce page | gradient slot 0 | gradient slot 1 | parameter buffer 0 | parameter buffer 1

A shard reads a gradient where the replica accrued it and writes parameters where the replica
will use them: one copy for a fetch, none for a push. Two of each, so that the replica works on
one while the link is busy with the other.
"""

import os
import secrets
from pathlib import Path

import torch
from torch import Tensor

from engine import memory
from engine.state import Location

_PAGE = 4096
_NONCE_BYTES = 16
NUM_SLOTS = 2


class Segment:
    """The mapped file and its four vectors, each of shape (P,)."""

    def __init__(self, path: Path, size: int, dtype: torch.dtype, *, new: bool) -> None:
        """Map `path`; with `new` the file is made and stamped with a fresh nonce."""
        self.path = path
        self._stride = -(-size * dtype.itemsize // _PAGE) * _PAGE
        num_bytes = _PAGE + 2 * NUM_SLOTS * self._stride
        opener = memory.create if new else memory.open_existing
        self._map = opener(path, num_bytes)
        self._itemsize = dtype.itemsize
        if new:
            self._map[:_NONCE_BYTES] = secrets.token_bytes(_NONCE_BYTES)
        vectors = [
            torch.frombuffer(self._map, dtype=dtype, count=size, offset=_PAGE + i * self._stride)
            for i in range(2 * NUM_SLOTS)
        ]
        self.gradients, self.parameters = vectors[:NUM_SLOTS], vectors[NUM_SLOTS:]

    @property
    def nonce(self) -> str:
        """Random bytes that prove both sides map the same file, as hexadecimal digits."""
        return self._map[:_NONCE_BYTES].hex()

    def location(self, slot: int, first: int) -> Location:
        """Where element `first` of gradient slot `slot` lies in the file."""
        return Location(str(self.path), _PAGE + slot * self._stride + first * self._itemsize)


def gradient_at(location: Location, count: int, dtype: torch.dtype) -> Tensor:
    """The gradient at `location`, shape (count,): what a successor finishes a push with."""
    mapped = memory.open_existing(Path(location.path), os.path.getsize(location.path))
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=location.offset)
