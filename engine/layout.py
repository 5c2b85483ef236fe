"""Where each named tensor lies in the flat parameter vector, and where shards cut that vector."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

#: Shard boundaries are multiples of this many elements: one 64-byte cache line of float32.
ALIGNMENT = 16


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the tensors that make up one flat vector, in order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype = torch.float32

    @staticmethod
    def of(tensors: Mapping[str, Tensor]) -> "Layout":
        """Layout of `tensors` in their own order; all must share one floating dtype."""
        dtypes = {tensor.dtype for tensor in tensors.values()}
        if len(dtypes) != 1:
            raise ValueError(f"want tensors of one dtype, got {sorted(map(str, dtypes))}")
        shapes = tuple(tuple(tensor.shape) for tensor in tensors.values())
        return Layout(tuple(tensors), shapes, dtypes.pop())

    @property
    def size(self) -> int:
        """Number of elements P of the flat vector."""
        return sum(prod(shape) for shape in self.shapes)

    @property
    def digest(self) -> str:
        """Short fingerprint of names, shapes and dtype."""
        text = json.dumps([self.names, self.shapes, str(self.dtype)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Named views into `flat`, shape (P,); writing to one writes to the vector."""
        if flat.shape != (self.size,):
            raise ValueError(f"vector has shape {tuple(flat.shape)}, layout wants ({self.size},)")
        views, first = {}, 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            views[name] = flat[first : first + prod(shape)].view(shape)
            first += prod(shape)
        return views

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Copy of `tensors` as one vector, shape (P,)."""
        flat = torch.empty(self.size, dtype=self.dtype)
        for name, view in self.views(flat).items():
            view.copy_(tensors[name].detach())
        return flat

    def slices(self, num_shards: int) -> tuple[slice, ...]:
        """Cut the vector into `num_shards` contiguous slices of nearly equal, aligned length."""
        num_lines = -(-self.size // ALIGNMENT)
        if not 1 <= num_shards <= num_lines:
            raise ValueError(
                f"num_shards={num_shards}: a vector of {self.size} parameters can be cut "
                f"into 1 to {num_lines} shards"
            )
        cuts = [min(self.size, num_lines * k // num_shards * ALIGNMENT) for k in range(num_shards)]
        return tuple(map(slice, cuts, [*cuts[1:], self.size]))

    def shards_of(self, names: Collection[str], slices: Sequence[slice]) -> tuple[int, ...]:
        """Indices of the `slices` that hold an element of a tensor in `names`."""
        held, first = set(), 0
        for name, shape in zip(self.names, self.shapes, strict=True):
            stop = first + prod(shape)
            if name in names:
                parts = enumerate(slices)
                held |= {k for k, part in parts if max(first, part.start) < min(stop, part.stop)}
            first = stop
        return tuple(sorted(held))
