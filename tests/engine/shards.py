"""Parameter shards in plain memory, and pushes for them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.config import MomentumConfig, RuleConfig
from engine.ledger import Progress
from engine.push import Push
from engine.rules import UpdateRule, make_rule
from engine.shard import ParameterShard
from engine.state import ShardState

RULE = MomentumConfig(learning_rate=0.1, momentum=0.9)


def vector(size: int, seed: int) -> Tensor:
    """Normal random numbers, shape (size,)."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def push(sequence: int = 1, replica: int = 0, incarnation: int = 1, fetched: int = 0) -> Push:
    """A push that finishes as many samples of lease 1 as its sequence number says."""
    return Push(replica, incarnation, sequence, fetched, Progress(1, sequence))


def new_state(size: int, rule: RuleConfig = RULE, buffer: bytearray | None = None) -> ShardState:
    """A state ready to be taken over; values are random, slots zero."""
    num_slots = len(make_rule(rule).slots)
    buffer = buffer or bytearray(ShardState.num_bytes(size, num_slots, torch.float32))
    state = ShardState(buffer, size, num_slots, torch.float32)
    state.fill(vector(size, seed=0), [torch.zeros(size)] * num_slots, version=0)
    return state


def new_shard(
    size: int = 10, rule: RuleConfig = RULE, max_staleness: int | None = None
) -> ParameterShard:
    """A shard of epoch 1 on a new state."""
    return ParameterShard(new_state(size, rule), make_rule(rule), 1, max_staleness)


def apply_(
    rule: UpdateRule,
    values: Tensor,
    slots: Sequence[Tensor],
    grad: Tensor,
    scale: float = 1.0,
    step: int = 1,
) -> None:
    """Change `values` and `slots`, each of shape (size,), by one update; nothing is kept."""
    vectors = torch.stack([values, *slots]).numpy()
    size = values.numel()
    undo = np.empty((2, len(vectors), size), vectors.dtype)
    update = rule.update(vectors.dtype, scale, step)
    update(vectors, grad.numpy(), undo, np.empty(2, np.int64), size, size, 0, 1)
    for vector, changed in zip([values, *slots], vectors, strict=True):
        vector.copy_(torch.from_numpy(changed))


@dataclass(frozen=True)
class Contents:
    """All that a shard would hand to its successor or write into a checkpoint."""

    vectors: tuple[bytes, ...]
    version: int
    progress: dict[tuple[int, int], Progress]

    @staticmethod
    def of(shard: ParameterShard) -> "Contents":
        values, slots, version = shard.copy()
        vectors = [values, *slots.values()]
        return Contents(tuple(v.numpy().tobytes() for v in vectors), version, shard.progress())
