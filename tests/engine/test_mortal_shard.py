"""The shard that runs in one process kill: every moment at which it can die is mended."""

import pytest
import torch

from engine.mortal_shard import MortalShard, ShardKilledError
from tests.engine.problems import RULES, rule_name
from tests.engine.shards import Contents, push, vector

BLOCK, SIZE = 8, 21
#: (intent_next_block, intent_undo_block) in a push of three blocks, in the order of the stores.
MOMENTS = [(0, -1), (0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr("engine.state.BLOCK", BLOCK)


def new_shard(config) -> MortalShard:
    shard = MortalShard(vector(SIZE, seed=0), config, None)
    shard.push(push(1), vector(SIZE, 1))
    return shard


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_whenever_it_dies_its_successor_has_the_push_once(config):
    grad = vector(SIZE, 2)
    undisturbed = new_shard(config)
    undisturbed.push(push(2), grad)
    expected, moments = Contents.of(undisturbed.shard), []
    for point in range(undisturbed.num_points):
        shard = new_shard(config)
        shard.doom(point)
        with pytest.raises(ShardKilledError):
            shard.push(push(2), grad)
        state = shard.shard._state
        moments.append((int(state["intent_next_block"]), int(state["intent_undo_block"])))
        shard.take_over(grad)
        shard.push(push(2), grad)
        assert Contents.of(shard.shard) == expected, f"died at point {point}"
    assert list(dict.fromkeys(moments)) == MOMENTS


def test_it_has_as_many_chances_to_die_in_a_push_as_it_says():
    shard = new_shard(RULES[0])
    for sequence, more, active in ((2, -1, 2), (3, 0, 0)):
        shard.doom(shard.num_points + more)
        with pytest.raises(ShardKilledError):
            shard.push(push(sequence), torch.zeros(SIZE))
        assert shard.shard._state["intent_active"] == active
        shard.take_over(torch.zeros(SIZE))
