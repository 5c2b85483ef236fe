"""Named vectors in this process's memory: a store of one shard."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.batch.kernels import carry_out, check_known, merge
from engine.batch.vector import Command, check_replayable, writes

#: Rows of a matrix begin at multiples of so many elements: on cache lines.
_LINE = 64


class LocalStore:
    """A `VectorStore` over tensors of this process; `num_round_trips` counts batches."""

    def __init__(self, **vectors: Tensor) -> None:
        """Start with copies of `vectors`, all of one shape (P,) and one floating dtype."""
        self.vectors = {name: vector.clone() for name, vector in vectors.items()}
        self.num_round_trips = 0
        self._rows: dict[str, Tensor] = {}

    def reserve(self, names: Sequence[str]) -> None:
        """Lay the vectors of these names out as rows of one matrix (`engine.batch.stacks`)."""
        like = next(iter(self.vectors.values()))
        # An odd number of lines apart: at powers of two all rows would share a few cache sets.
        # Memory of rows that nobody writes is not taken up.
        stride = (-(-len(like) // _LINE) | 1) * _LINE
        rows = torch.empty(len(names), stride, dtype=like.dtype)[:, : len(like)]
        self._rows = dict(zip(names, rows, strict=True))

    def writable(self, name: str) -> Tensor:
        """The vector of that name, to be overwritten; made if there is none."""
        if name not in self.vectors:
            row = self._rows.get(name)
            like = next(iter(self.vectors.values()))
            self.vectors[name] = torch.empty_like(like) if row is None else row
        return self.vectors[name]

    def run(self, commands: Sequence[Command]) -> tuple[float, ...]:
        check_replayable(commands)
        check_known(commands, self.vectors)
        self.num_round_trips += 1
        share: list[float] = []
        for command in commands:
            if target := writes(command):
                self.writable(target)
            share += carry_out(command, self.vectors)
        return merge(commands, [share])
