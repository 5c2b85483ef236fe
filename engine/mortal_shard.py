"""A parameter shard that can die in the middle of a push, for runs in one process."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine.config import RuleConfig
from engine.push import Applied, Push
from engine.rules import UpdateRule, make_rule
from engine.rules.rule import Array, Dtype, Update
from engine.shard import ParameterShard
from engine.state import ShardState

#: Chances to die in a push that is begun: before stores to the header, and within each block.
_STORES, _STORES_A_BLOCK = 3, 2


class ShardKilledError(Exception):
    """The shard's process died here."""


class Doom:
    """Counts down a shard's chances to die."""

    def __init__(self) -> None:
        self.points_left: int | None = None  # None: it lives on

    def strikes(self) -> bool:
        """Whether it dies at this chance."""
        if self.points_left is None:
            return False
        self.points_left -= 1
        return self.points_left < 0


class MortalState(ShardState):
    """A state whose owner may die before any store to the header, once a push is begun."""

    def __init__(self, doom: Doom, *arguments: Any) -> None:
        self._doom = doom
        super().__init__(*arguments)

    def __setitem__(self, field: str, value: Any) -> None:
        if self["intent_active"] and self._doom.strikes():
            raise ShardKilledError
        super().__setitem__(field, value)


@dataclass(frozen=True)
class MortalRule:
    """An update rule whose process may die in each block, and before it notes that it is done."""

    rule: UpdateRule
    doom: Doom
    state: ShardState

    @property
    def slots(self) -> tuple[str, ...]:
        return self.rule.slots

    def compile(self, dtype: Dtype) -> None:
        self.rule.compile(dtype)

    def update(self, dtype: Dtype, scale: float, step: int) -> Update:
        whole = self.rule.update(dtype, scale, step)

        def mortal(
            vectors: Array,
            grad: Array,
            undo: Array,
            marks: Array,
            size: int,
            end: int,
            first: int,
            last: int,
        ) -> None:
            for block in range(first, last):
                if self.doom.strikes():
                    half_done(whole, vectors, grad, undo, size, end, block)
                    raise ShardKilledError
                whole(vectors, grad, undo, np.empty_like(marks), size, end, block, block + 1)
                self.state["intent_next_block"] = block + 1
                self.state["intent_undo_block"] = block + 1

        return mortal


def half_done(
    update: Update, vectors: Array, grad: Array, undo: Array, size: int, end: int, block: int
) -> None:
    """As far as `update` is when half of a block is updated and half of the next one copied."""
    stop = min(block * size + size, end)
    middle, ahead = (block * size + stop) // 2, min(stop + size, end) - stop
    kept = undo[(block + 1) % 2]
    before, copied = vectors[:, middle:stop].copy(), kept[:, ahead // 2 :].copy()
    update(vectors, grad, undo, np.empty(2, np.int64), size, end, block, block + 1)
    vectors[:, middle:stop] = before
    kept[:, ahead // 2 :] = copied


class MortalShard:
    """A parameter shard whose process can die; its memory goes to the next one."""

    def __init__(
        self,
        values: Tensor,
        rule: RuleConfig,
        max_staleness: int | None,
        max_norm: float | None = None,
    ) -> None:
        self._doom = Doom()
        immortal = make_rule(rule)
        self._max_staleness, self._max_norm = max_staleness, max_norm
        shape = (values.numel(), len(immortal.slots), values.dtype)
        self._state = MortalState(self._doom, bytearray(ShardState.num_bytes(*shape)), *shape)
        self._rule = MortalRule(immortal, self._doom, self._state)
        zeros = [torch.zeros_like(values) for _ in self._rule.slots]
        self._state.fill(values, zeros, version=0)
        self.epoch = 0
        self._start()
        self.num_points = _STORES + (1 + _STORES_A_BLOCK) * self._state.num_blocks

    def doom(self, point: int) -> None:
        """Die at the `point`-th chance from now, of which a push has `num_points`."""
        self._doom.points_left = point

    def push(self, push: Push, grad: Tensor) -> Applied:
        """As the shard does; one that is doomed dies at the latest before it answers."""
        try:
            return self.shard.push(push, grad)
        finally:
            if self._doom.points_left is not None:
                raise ShardKilledError

    def _start(self) -> None:
        self.epoch += 1
        self.shard = ParameterShard(
            self._state, self._rule, self.epoch, self._max_staleness, max_norm=self._max_norm
        )

    def take_over(self, grad: Tensor) -> None:
        """A successor starts and finishes the push of `grad`, in which the last owner died."""
        self._doom.points_left = None
        self._start()
        self.shard.finish_interrupted(lambda _: grad)
