"""Random kills, losses, duplicates and reorderings: integers say what was lost or repeated."""

from collections import Counter

import pytest

from engine.applied_pushes import AppliedPushes
from engine.faults import KINDS
from engine.shard import ParameterShard
from tests.engine.fault_storm import run

NUM_SEEDS = 500
TALLY: Counter[str] = Counter()


@pytest.mark.parametrize("first", range(0, NUM_SEEDS, 50))
def test_no_acknowledged_update_is_lost_and_none_is_applied_twice(first):
    for seed in range(first, first + 50):
        TALLY.update(storm(seed))
        TALLY["seeds"] += 1


def test_nor_where_each_replica_talks_to_some_of_the_shards_only():
    fired = Counter[str]()
    for seed in range(100):
        fired.update(storm(seed, partitioned=True))
    assert all(fired[kind] for kind in KINDS)


def storm(seed: int, *, partitioned: bool = False) -> Counter[str]:
    try:
        return run(seed, partitioned=partitioned)[0]
    except AssertionError as error:
        how = " partitioned" * partitioned
        error.add_note(f"to see this run: python -m tests.engine.fault_storm {seed}{how}")
        raise


def test_every_kind_of_fault_has_fired():
    assert TALLY["seeds"] == NUM_SEEDS
    assert {kind for kind in KINDS if TALLY[kind] < NUM_SEEDS} == set()


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (AppliedPushes, "seen", lambda self, row, sequence: False),
        (ParameterShard, "finish_interrupted", lambda self, grad_at: False),
        (ParameterShard, "fence", lambda self, replica, incarnation: None),
    ],
)
def test_the_oracle_notices_a_shard_that_forgets(monkeypatch, owner, name, broken):
    monkeypatch.setattr(owner, name, broken)
    caught = 0
    for seed in range(30):
        try:
            run(seed)
        except AssertionError:
            caught += 1
    assert caught > 3
