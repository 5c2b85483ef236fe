"""Named vectors in this process's memory: a store of one shard."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.batch.kernels import carry_out, check_known, merge
from engine.batch.vector import Command, check_replayable, writes


class LocalStore:
    """A `VectorStore` over tensors of this process; `num_round_trips` counts batches."""

    def __init__(self, **vectors: Tensor) -> None:
        """Start with copies of `vectors`, all of one shape (P,) and one floating dtype."""
        self.vectors = {name: vector.clone() for name, vector in vectors.items()}
        self.num_round_trips = 0

    def run(self, commands: Sequence[Command]) -> tuple[float, ...]:
        check_replayable(commands)
        check_known(commands, self.vectors)
        self.num_round_trips += 1
        share: list[float] = []
        for command in commands:
            if target := writes(command):
                self._ensure(target)
            share += carry_out(command, self.vectors)
        return merge(commands, [share])

    def _ensure(self, name: str) -> None:
        if name not in self.vectors:
            self.vectors[name] = torch.zeros_like(next(iter(self.vectors.values())))
