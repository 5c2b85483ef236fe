"""A shard killed anywhere inside a push: its successor finishes it, to the same bits."""

import functools
import itertools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.config import RuleConfig
from engine.mortal_shard import half_done
from engine.rules import UpdateRule, make_rule
from engine.rules.loops import interpreted
from engine.rules.rule import ElementwiseRule, Update
from engine.shard import ParameterShard
from engine.state import Location, ShardState
from tests.engine.killed import Killed, dies_at
from tests.engine.problems import RULES, rule_name
from tests.engine.shards import RULE, Contents, new_state, push, vector

BLOCK = 8
#: Part of a block, one block, two blocks and a part; how many stores and calls a push takes.
NUM_POINTS = {5: 140, 8: 180, 21: 400}
SIZES = list(NUM_POINTS)
PLACE = Location("/memory/replica", 4096)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """The same code on blocks of 8 values: three of them fill the vector."""
    monkeypatch.setattr("engine.state.BLOCK", BLOCK)


class Interpreted(ElementwiseRule):
    """A rule whose loops Python carries out, so that they can be killed anywhere."""

    def compile(self, dtype) -> None:
        """There is nothing to be done."""

    def update(self, dtype, scale, step) -> Update:
        def formula(*numbers: Any) -> tuple[float, ...]:
            return self.formula(*map(float, numbers))

        constants = self.constants(dtype, scale, step)
        return functools.partial(interpreted(formula, len(self.slots)), constants)


def interpreted_rule(config: RuleConfig) -> UpdateRule:
    rule = make_rule(config)
    assert isinstance(rule, ElementwiseRule)
    return Interpreted(rule.slots, rule.formula, rule.constants)


class TornUndo(ShardState):
    """A state whose process dies when the copy of its first block is half done."""

    def save_undo(self, index: int) -> None:
        start, stop = self.block(index)
        half = (stop - start) // 2
        self.undo[index % 2, :, :half] = self.vectors[:, start : start + half]
        raise Killed


class Memory:
    """The memory of one shard, which outlives the processes that own it."""

    def __init__(
        self,
        config: RuleConfig = RULE,
        size: int = 21,
        make_rule: Callable[[RuleConfig], UpdateRule] = make_rule,
    ) -> None:
        self.config, self.size, self.make_rule = config, size, make_rule
        num_slots = len(make_rule(config).slots)
        self._buffer = bytearray(ShardState.num_bytes(size, num_slots, torch.float32))
        new_state(size, config, self._buffer)
        self._epochs = itertools.count(1)
        owner = self.taken_over()
        for sequence in (1, 2):
            owner.push(push(sequence), vector(size, sequence))

    def state(self, kind: type[ShardState] = ShardState) -> ShardState:
        num_slots = len(make_rule(self.config).slots)
        return kind(self._buffer, self.size, num_slots, torch.float32)

    def taken_over(
        self, state: ShardState | None = None, rule: UpdateRule | None = None
    ) -> ParameterShard:
        state, rule = state or self.state(), rule or self.make_rule(self.config)
        return ParameterShard(state, rule, next(self._epochs))


def send_push_3(shard: ParameterShard) -> bool:
    """True if the shard had it already."""
    return shard.push(push(3), vector(shard.num_values, 3), PLACE).duplicate


def finish_push_3(shard: ParameterShard) -> bool:
    """True if the shard's last owner had begun it."""

    def grad_at(location: Location) -> Tensor:
        assert location == PLACE
        return vector(shard.num_values, 3)

    return shard.finish_interrupted(grad_at)


def uninterrupted(*memory: Any) -> Contents:
    shard = Memory(*memory).taken_over()
    send_push_3(shard)
    return Contents.of(shard)


def finish(memory: Memory) -> tuple[Contents, bool, bool]:
    """What a successor makes of it: contents after the client's retry, found begun, found done."""
    shard = memory.taken_over()
    begun = finish_push_3(shard)
    done = send_push_3(shard)
    assert send_push_3(shard), "the shard must know the push by now"
    return Contents.of(shard), begun, done


@pytest.mark.parametrize("config", RULES, ids=rule_name)
@pytest.mark.parametrize("size", SIZES)
def test_a_push_killed_at_any_instruction_is_applied_exactly_once(config, size):
    expected, found = uninterrupted(config, size, interpreted_rule), set()
    for point in itertools.count():
        memory = Memory(config, size, interpreted_rule)
        owner = memory.taken_over()
        if not dies_at(point, lambda owner=owner: send_push_3(owner)):
            break
        contents, begun, done = finish(memory)
        assert contents == expected, f"killed at point {point}"
        found.add((begun, done))
    assert point > 0.8 * NUM_POINTS[size]
    assert found == {(False, False), (True, True), (False, True)}  # before, within, after


@pytest.mark.parametrize("size", SIZES)
def test_successors_that_are_killed_while_they_finish_leave_the_same_bits(size):
    expected, heirs_killed = uninterrupted(RULE, size, interpreted_rule), 0
    for seed in range(400):
        rng = random.Random(seed)
        memory = Memory(RULE, size, interpreted_rule)
        owner = memory.taken_over()
        dies_at(rng.randrange(NUM_POINTS[size]), lambda owner=owner: send_push_3(owner))
        for _ in range(rng.randrange(1, 4)):
            heir = memory.taken_over()
            point = rng.randrange(NUM_POINTS[size])
            heirs_killed += dies_at(point, lambda heir=heir: finish_push_3(heir))
        assert finish(memory)[0] == expected, f"seed {seed}"
    assert heirs_killed > 50


class Torn:
    """A rule whose process dies when its last block is updated by half, the next copied by half."""

    def __init__(self, rule: UpdateRule, blocks: int) -> None:
        self.slots, self.compile = rule.slots, rule.compile
        self._rule, self._blocks = rule, blocks

    def update(self, dtype, scale, step) -> Update:
        whole = self._rule.update(dtype, scale, step)

        def update(vectors, grad, undo, marks, size, end, first, last) -> None:
            for block in range(first, last):
                self._blocks -= 1
                if not self._blocks:
                    half_done(whole, vectors, grad, undo, size, end, block)
                    raise Killed
                whole(vectors, grad, undo, marks, size, end, block, block + 1)

        return update


@pytest.mark.parametrize("config", RULES, ids=rule_name)
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_block_that_was_updated_by_half_is_not_updated_twice(config, blocks):
    memory = Memory(config)
    owner = memory.taken_over(rule=Torn(make_rule(config), blocks))
    with pytest.raises(Killed):
        send_push_3(owner)
    assert finish(memory)[0] == uninterrupted(config)


@pytest.mark.parametrize("done", [0, 1, 2])
def test_half_a_copy_of_a_block_is_never_put_back(done):
    memory = Memory()
    if done:  # the heir begins with the block that its predecessor was at
        with pytest.raises(Killed):
            send_push_3(memory.taken_over(rule=Torn(make_rule(RULE), done + 1)))
    heir = memory.taken_over(state=memory.state(TornUndo))
    with pytest.raises(Killed):
        finish_push_3(heir) if done else send_push_3(heir)
    assert finish(memory)[0] == uninterrupted()


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_the_copy_of_a_block_is_made_while_the_one_before_it_is_updated(config):
    state = Memory(config).state()
    rule, grad = make_rule(config), vector(21, seed=3).numpy()
    alone, before = state.vectors.copy(), state.vectors.copy()
    update, nowhere = rule.update(alone.dtype, 1.0, 3), np.empty_like(state.undo)
    for block, (stop, num_ahead) in enumerate([(8, 8), (16, 5), (21, 0)]):
        state.undo[:] = 0.0
        update(state.vectors, grad, state.undo, state.marks, BLOCK, 21, block, block + 1)
        update(alone, grad, nowhere, np.empty(2, np.int64), BLOCK, stop, block, block + 1)
        kept, other = state.undo[(block + 1) % 2], state.undo[block % 2]
        copied = before[:, stop : stop + num_ahead]
        assert kept[:, :num_ahead].tobytes() == copied.tobytes()
        assert not kept[:, num_ahead:].any()
        assert not other.any()
        assert state.vectors.tobytes() == alone.tobytes()
        assert state.vectors[:, stop:].tobytes() == before[:, stop:].tobytes()
        assert state.marks.tolist() == [block + 1] * 2
