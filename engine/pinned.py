"""Vectors in main memory that a GPU reads and writes itself, with no buffer between."""

import logging
import mmap
import weakref
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)


class Pinned:
    """Keeps a vector's pages in place for the GPU, and the vector alive, as long as it lives."""

    def __init__(self, vector: Tensor) -> None:
        """Pin a vector that begins with a page, as those in memory files do; leave others.

        Two vectors on one page could not both be pinned. What is not pinned is copied slower.
        """
        if vector.data_ptr() % mmap.PAGESIZE or vector.is_pinned() or not _register(vector):
            return
        # The GPU must have let go of the pages before they are anything else's: until then the
        # finaliser holds the vector.
        weakref.finalize(self, _unregister, vector)


def _register(vector: Tensor) -> bool:
    error = _runtime().cudaHostRegister(vector.data_ptr(), vector.nbytes, 0)
    if int(error):
        log.warning("a vector of %d bytes cannot be pinned: error %d", vector.nbytes, int(error))
        with suppress(RuntimeError):
            torch.ones(1, device="cuda")  # CUDA gives the error to whoever asks next
    return not int(error)


def _unregister(vector: Tensor) -> None:
    _runtime().cudaHostUnregister(vector.data_ptr())


def _runtime() -> Any:
    return torch.cuda.cudart()  # type: ignore[no-untyped-call]  # torch does not annotate it
