"""A parameter shard: each push changes it once, in the order of arrival."""

import random

import pytest
import torch

from engine.applied_pushes import WINDOW
from engine.ledger import Progress
from engine.push import Applied
from engine.rules import make_rule
from engine.shard import ParameterShard
from engine.state import NUM_ROWS, ShardState
from tests.engine.problems import RULES, rule_name
from tests.engine.shards import RULE, Contents, apply_, new_shard, new_state, push, vector

SIZE = 10


@pytest.mark.parametrize("config", RULES, ids=rule_name)
def test_a_push_is_one_step_of_the_rule(config):
    shard = new_shard(SIZE, config)
    rule, values = make_rule(config), vector(SIZE, seed=0)
    slots = [torch.zeros(SIZE) for _ in rule.slots]
    for sequence in range(1, 6):
        grad = vector(SIZE, seed=sequence)
        shard.push(push(sequence)._replace(scale=0.5), grad)
        apply_(rule, values, slots, grad, 0.5, sequence)
    found, found_slots, version = shard.copy()
    assert torch.equal(found, values)
    assert list(found_slots) == list(rule.slots)
    assert all(map(torch.equal, found_slots.values(), slots))
    assert version == 5


def test_the_version_counts_pushes_and_staleness_is_the_distance_to_the_fetched_one():
    shard, out = new_shard(SIZE), torch.empty(SIZE)
    fetched = shard.fetch(out)
    for staleness in range(4):
        applied = shard.push(push(replica=staleness, fetched=fetched), vector(SIZE, 1))
        assert applied == Applied(staleness + 1, staleness, duplicate=False)
    assert shard.fetch(out) == shard.version == 4


def test_fetched_values_are_a_copy():
    shard, out = new_shard(SIZE), torch.empty(SIZE)
    shard.fetch(out)
    assert torch.equal(out, vector(SIZE, seed=0))
    out.fill_(0.0)
    assert torch.equal(shard.copy()[0], vector(SIZE, seed=0))


def test_copies_do_not_change_with_the_shard():
    shard = new_shard(SIZE)
    values, slots, _ = shard.copy()
    shard.push(push(), vector(SIZE, 1))
    assert torch.equal(values, vector(SIZE, seed=0))
    assert not slots["velocity"].any()


def test_a_push_that_is_sent_again_changes_nothing():
    shard, grad = new_shard(SIZE), vector(SIZE, 1)
    shard.push(push(1), grad)
    before = Contents.of(shard)
    assert shard.push(push(1), grad) == Applied(1, 0, duplicate=True)
    assert Contents.of(shard) == before


@pytest.mark.parametrize("seed", range(10))
def test_pushes_apply_once_in_any_order_and_however_often_they_arrive(seed):
    rng = random.Random(seed)
    shard = new_shard(SIZE)
    # Up to half of the window apart, half of them twice, from three replicas at once.
    arrivals = [(i, r) for i in range(1, 200) for r in range(3)]
    arrivals += rng.sample(arrivals, len(arrivals) // 2)
    arrivals.sort(key=lambda arrival: arrival[0] + rng.uniform(0, WINDOW / 2))
    applied = [
        (sequence, replica)
        for sequence, replica in arrivals
        if not shard.push(push(sequence, replica), vector(SIZE, sequence)).duplicate
    ]
    assert sorted(applied) == [(i, r) for i in range(1, 200) for r in range(3)]
    assert shard.version == len(applied)
    assert shard.progress() == {(replica, 1): Progress(1, 199) for replica in range(3)}


def test_the_same_number_in_another_incarnation_is_another_push():
    shard = new_shard(SIZE)
    for incarnation in (1, 2):
        applied = shard.push(push(1, incarnation=incarnation), vector(SIZE, 1))
        assert not applied.duplicate
    assert shard.version == 2


def test_progress_is_the_furthest_of_each_life():
    shard = new_shard(SIZE)
    for sequence, progress in [(2, Progress(1, 8)), (1, Progress(1, 4)), (3, Progress(2, 1))]:
        shard.push(push(sequence)._replace(progress=progress), vector(SIZE, 1))
    shard.push(push(1, replica=7), vector(SIZE, 1))
    assert shard.progress() == {(0, 1): Progress(2, 1), (7, 1): Progress(1, 1)}


def test_a_new_owner_finds_everything_the_old_one_had_applied():
    state = new_state(SIZE)
    old = ParameterShard(state, make_rule(RULE), epoch=1)
    for sequence in range(1, 4):
        old.push(push(sequence), vector(SIZE, sequence))
    before = Contents.of(old)
    new = ParameterShard(state, make_rule(RULE), epoch=2)
    assert new.finish_interrupted(pytest.fail) is False
    assert Contents.of(new) == before
    assert new.push(push(3), vector(SIZE, 3)).duplicate
    assert not new.push(push(4), vector(SIZE, 4)).duplicate


def test_more_lives_than_the_table_has_rows_push_out_the_oldest_fenced_ones():
    shard = new_shard(SIZE)
    for incarnation in range(1, NUM_ROWS + 1):
        shard.push(push(1, incarnation=incarnation), vector(SIZE, 1))
    for incarnation in range(1, 101):
        shard.fence(0, incarnation)
    for incarnation in range(NUM_ROWS + 1, NUM_ROWS + 51):
        shard.push(push(1, incarnation=incarnation), vector(SIZE, 1))
    remembered = sorted(incarnation for _, incarnation in shard.progress())
    assert remembered == list(range(51, NUM_ROWS + 51))


def test_a_table_full_of_living_replicas_is_an_error_and_not_a_forgotten_push():
    shard = new_shard(SIZE)
    for replica in range(NUM_ROWS):
        shard.push(push(replica=replica), vector(SIZE, 1))
    with pytest.raises(RuntimeError, match=f"all {NUM_ROWS} rows are in use by living replicas"):
        shard.push(push(replica=NUM_ROWS), vector(SIZE, 1))
    assert shard.version == NUM_ROWS


def test_memory_of_a_shard_of_another_size_is_refused():
    buffer = bytearray(ShardState.num_bytes(100, 1, torch.float32))
    ShardState(buffer, 100, 1, torch.float32)
    with pytest.raises(ValueError, match=r"another shard: want .*99.*, found .*100"):
        ShardState(buffer, 99, 1, torch.float32)
