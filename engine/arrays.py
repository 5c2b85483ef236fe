"""Data that lies in memory: arrays whose first axis is the samples, as mini-batches of leases."""

from collections.abc import Iterator
from typing import Any

import torch

from engine.ledger import Lease
from engine.problem import Minibatch


class Arrays:
    """One unit of data. A mini-batch's payload is the tuple of all arrays at its samples."""

    def __init__(self, *arrays: Any, seed: int = 0) -> None:
        """Take arrays or tensors of equal length; nothing is copied.

        Args:
            seed: of the order, which is another one in each epoch.
        """
        self._tensors = tuple(torch.as_tensor(array) for array in arrays)
        for number, tensor in enumerate(self._tensors):
            if not tensor.ndim:
                raise ValueError(
                    f"array {number} is a single {tensor.dtype}: want samples along the first axis"
                )
        lengths = [len(tensor) for tensor in self._tensors]
        if len(set(lengths)) != 1:
            raise ValueError(f"arrays of {lengths} samples: want one or more of equal length")
        self.unit_sizes = (lengths[0],)
        self._seed = seed

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        """See `engine.problem.Problem.minibatches`."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + lease.epoch)
        order = torch.randperm(self.unit_sizes[0], generator=generator)
        for start in range(lease.start, lease.stop, size):
            chosen = order[start : min(start + size, lease.stop)]
            yield Minibatch(tuple(tensor[chosen] for tensor in self._tensors), len(chosen))
