"""A parameter shard that can die in the middle of a push, for runs in one process."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.config import RuleConfig
from engine.push import Applied, Push
from engine.rules import UpdateRule, make_rule
from engine.shard import ParameterShard
from engine.state import ShardState


class ShardKilledError(Exception):
    """The shard's process died here."""


class MortalRule:
    """An update rule that can be made to kill its shard before or after the update of a block."""

    def __init__(self, rule: UpdateRule) -> None:
        self._rule = rule
        self.slots = rule.slots
        self._points_left: int | None = None

    def doom(self, point: int | None) -> None:
        """Die at the `point`-th chance from now, two a block; None: live on."""
        self._points_left = point

    @property
    def doomed(self) -> bool:
        return self._points_left is not None

    def apply_(
        self,
        values: Tensor,
        slots: Sequence[Tensor],
        grad: Tensor,
        scratch: Tensor,
        scale: float,
        step: int,
    ) -> None:
        self._chance()
        self._rule.apply_(values, slots, grad, scratch, scale, step)
        self._chance()

    def _chance(self) -> None:
        if self._points_left is None:
            return
        if not self._points_left:
            raise ShardKilledError
        self._points_left -= 1


class MortalShard:
    """A parameter shard whose process can die; its memory goes to the next one."""

    def __init__(
        self,
        values: Tensor,
        rule: RuleConfig,
        max_staleness: int | None,
        max_norm: float | None = None,
    ) -> None:
        self._rule = MortalRule(make_rule(rule))
        self._max_staleness, self._max_norm = max_staleness, max_norm
        self._state = ShardState.in_memory(values.numel(), len(self._rule.slots), values.dtype)
        zeros = [torch.zeros_like(values) for _ in self._rule.slots]
        self._state.fill(values, zeros, version=0)
        self.epoch = 0
        self._start()
        self.doom, self.num_points = self._rule.doom, 2 * self._state.num_blocks

    def push(self, push: Push, grad: Tensor) -> Applied:
        """As the shard does; one that is doomed dies at the latest before it answers."""
        try:
            return self.shard.push(push, grad)
        finally:
            if self._rule.doomed:
                raise ShardKilledError

    def _start(self) -> None:
        self.epoch += 1
        self.shard = ParameterShard(
            self._state, self._rule, self.epoch, self._max_staleness, max_norm=self._max_norm
        )

    def take_over(self, grad: Tensor) -> None:
        """A successor starts and finishes the push of `grad`, in which the last owner died."""
        self._rule.doom(None)
        self._start()
        self.shard.finish_interrupted(lambda _: grad)
