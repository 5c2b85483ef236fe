"""Memory of mini-batches, taken again once nobody holds the mini-batch that lay in it.

malloc is not good at that: freed and asked for again, a block of this size often does not fit where
it was, for something small has been put there. Its heap grew by a mini-batch every few hundred
images then, and to touch memory for the first time costs more than to fill it: 6 ms every 2 MiB on
a virtual machine, which made reading a third slower in one process of four.
"""

import mmap
import weakref
from collections import deque
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Buffer = npt.NDArray[np.float32]


class RecycledMemory:
    """As many buffers as tensors were alive at the same time; threads may share it."""

    def __init__(self) -> None:
        self._free: deque[Buffer] = deque()

    def take(self, size: int) -> Tensor:
        """Return a float32 vector of `size` elements, at least 1, that hold anything.

        It begins at a page. Its memory is used again when it and all its views are gone, whatever
        thread they go in.
        """
        buffer = self._pop(size)
        held = buffer[:size]  # an object of its own: it lives as long as the tensor's storage
        weakref.finalize(held, self._free.append, buffer).atexit = False
        return torch.from_numpy(held)

    def _pop(self, size: int) -> Buffer:
        """A free buffer, or a new one. Those that have become too small go."""
        with suppress(IndexError):  # no lock: a finalizer may run at any point of this, and append
            while True:
                if len(buffer := self._free.pop()) >= size:
                    return buffer
        return _mapped(size)


def _mapped(size: int) -> Buffer:
    """Memory straight from the system, in large pages where it has them."""
    num_bytes = size * np.dtype(np.float32).itemsize
    memory = mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel that was built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.float32, size)
