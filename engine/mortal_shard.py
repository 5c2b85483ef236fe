"""A parameter shard that can die in the middle of a push, for runs in one process."""

from dataclasses import dataclass
from typing import Any

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
    """An update rule whose process may die when it has done half of a block."""

    rule: UpdateRule
    doom: Doom

    @property
    def slots(self) -> tuple[str, ...]:
        return self.rule.slots

    def compile(self, dtype: Dtype) -> None:
        self.rule.compile(dtype)

    def update(self, dtype: Dtype, scale: float, step: int) -> Update:
        whole = self.rule.update(dtype, scale, step)

        def mortal(*arguments: Any, **named: Any) -> None:
            if self.doom.strikes():
                half_done(whole, *arguments, **named)
                raise ShardKilledError
            whole(*arguments, **named)

        return mortal


def half_done(
    update: Update, vectors: Array, grad: Array, kept: Array, start: int, stop: int, num_ahead: int
) -> None:
    """As far as `update` is when half of the block is updated and half of the next one copied."""
    middle = (start + stop) // 2
    block, copied = vectors[:, middle:stop].copy(), kept[:, num_ahead // 2 :].copy()
    update(vectors, grad, kept, start, stop, num_ahead)
    vectors[:, middle:stop] = block
    kept[:, num_ahead // 2 :] = copied


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
        self._rule = MortalRule(make_rule(rule), self._doom)
        self._max_staleness, self._max_norm = max_staleness, max_norm
        shape = (values.numel(), len(self._rule.slots), values.dtype)
        self._state = MortalState(self._doom, bytearray(ShardState.num_bytes(*shape)), *shape)
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
