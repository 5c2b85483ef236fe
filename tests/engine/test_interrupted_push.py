"""A shard killed anywhere inside a push: its successor finishes it, to the same bits."""

import itertools
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.config import RuleConfig
from engine.mortal_shard import half_done
from engine.rules import UpdateRule, make_rule
from engine.rules.rule import Update
from engine.shard import ParameterShard
from engine.state import Location, ShardState
from tests.engine.killed import Killed, dies_at
from tests.engine.problems import RULES, rule_name
from tests.engine.shards import RULE, Contents, new_state, push, vector

BLOCK = 8
SIZES = [5, 8, 21]  # part of a block, one block, two blocks and a part
PLACE = Location("/memory/replica", 4096)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """The same code on blocks of 8 values: three of them fill the vector."""
    monkeypatch.setattr("engine.state.BLOCK", BLOCK)


class TornUndo(ShardState):
    """A state whose process dies when the copy of its first block is half done."""

    def save_undo(self, index: int) -> None:
        start, stop = self.block(index)
        half = (stop - start) // 2
        self.undo(index)[:, :half] = self.vectors[:, start : start + half]
        raise Killed


class Memory:
    """The memory of one shard, which outlives the processes that own it."""

    def __init__(self, config: RuleConfig = RULE, size: int = 21) -> None:
        self.config, self.size = config, size
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
        state, rule = state or self.state(), rule or make_rule(self.config)
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


def uninterrupted(config: RuleConfig = RULE, size: int = 21) -> Contents:
    shard = Memory(config, size).taken_over()
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
    expected, found = uninterrupted(config, size), set()
    for point in itertools.count():
        memory = Memory(config, size)
        owner = memory.taken_over()
        if not dies_at(point, lambda owner=owner: send_push_3(owner)):
            break
        contents, begun, done = finish(memory)
        assert contents == expected, f"killed at point {point}"
        found.add((begun, done))
    assert point > 50
    assert found == {(False, False), (True, True), (False, True)}  # before, within, after


@pytest.mark.parametrize("size", SIZES)
def test_successors_that_are_killed_while_they_finish_leave_the_same_bits(size):
    expected, heirs_killed = uninterrupted(size=size), 0
    for seed in range(400):
        rng = random.Random(seed)
        memory = Memory(size=size)
        owner = memory.taken_over()
        dies_at(rng.randrange(90), lambda owner=owner: send_push_3(owner))
        for _ in range(rng.randrange(1, 4)):
            heir = memory.taken_over()
            heirs_killed += dies_at(rng.randrange(60), lambda heir=heir: finish_push_3(heir))
        assert finish(memory)[0] == expected, f"seed {seed}"
    assert heirs_killed > 50


class Torn:
    """A rule whose process dies when its last block is updated by half, the next copied by half."""

    def __init__(self, rule: UpdateRule, blocks: int) -> None:
        self.slots, self.compile = rule.slots, rule.compile
        self._rule, self._blocks = rule, blocks

    def update(self, dtype, scale, step) -> Update:
        whole = self._rule.update(dtype, scale, step)

        def update(*arguments: Any) -> None:
            self._blocks -= 1
            if self._blocks:
                return whole(*arguments)
            half_done(whole, *arguments)
            raise Killed

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
    kept = state.undo(1)
    kept[:] = 0.0
    for start, stop, num_ahead in ((0, 8, 8), (8, 16, 5), (16, 21, 0)):
        update = rule.update(alone.dtype, 1.0, 3)
        update(state.vectors, grad, kept, start, stop, num_ahead)
        update(alone, grad, kept, start, stop, 0)
        copied = before[:, stop : stop + num_ahead]
        assert kept[:, :num_ahead].tobytes() == copied.tobytes()
        assert state.vectors.tobytes() == alone.tobytes()
        assert state.vectors[:, stop:].tobytes() == before[:, stop:].tobytes()
