"""What a snapshot contains, against an oracle that keeps every sample that a shard applied."""

import pytest

from engine.ledger import Ledger, Progress, Range
from tests.engine.ledger_world import LedgerWorld, samples_of

ALICE, BOB = (0, 1), (1, 1)


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5])
def test_the_ledger_knows_exactly_which_samples_a_snapshot_holds(num_replicas):
    lengths = set()
    for seed in range(200):
        world = LedgerWorld(seed, num_replicas)
        for _ in range(3):
            world.some_steps()
            counted, held = world.snapshot()
            samples = samples_of(counted)
            assert len(samples) == len(set(samples)), f"seed {seed}: a sample counts twice"
            assert set(samples) == held, f"seed {seed}"
            lengths.add(len(held))
    assert len(lengths) > 20


def test_a_snapshot_holds_less_than_what_counts_by_the_time_it_is_written():
    book = Ledger([20], 1, lease_size=10)
    lease = book.lease(ALICE)
    mark = book.mark()
    book.count(ALICE, Progress(lease.id, 10))
    assert book.counted_at(mark, {ALICE: Progress(lease.id, 4)}) == (Range(0, 0, 0, 4),)
    assert book.counted_at(mark, {}) == ()


def test_a_snapshot_may_hold_more_than_what_was_reported():
    book = Ledger([20], 1, lease_size=10)
    lease = book.lease(ALICE)
    assert book.counted_at(book.mark(), {ALICE: Progress(lease.id, 7)}) == (Range(0, 0, 0, 7),)
    assert book.num_counted == 0


def test_leases_closed_before_the_mark_need_no_progress():
    book = Ledger([20], 1, lease_size=10)
    first, second = book.lease(ALICE), book.lease(BOB)
    book.count(ALICE, Progress(first.id, 10))
    book.settle(BOB, Progress(second.id, 13))
    assert book.counted_at(book.mark(), {}) == (Range(0, 0, 0, 13),)


def test_a_replica_that_dies_while_the_snapshot_is_taken_counts_as_far_as_the_snapshot_says():
    book = Ledger([20], 1, lease_size=10)
    lease = book.lease(ALICE)
    mark = book.mark()
    book.settle(ALICE, Progress(lease.id, 8))
    again = book.lease(BOB)
    book.count(BOB, Progress(again.id, 10))
    held = {ALICE: Progress(lease.id, 5)}
    assert book.counted_at(mark, held) == (Range(0, 0, 0, 5),)
    assert book.counted_at(mark, {ALICE: Progress(lease.id, 8), BOB: Progress(again.id, 9)}) == (
        Range(0, 0, 0, 9),
    )


def test_a_resumed_ledger_lends_only_what_is_missing():
    counted = (Range(0, 0, 3, 5), Range(0, 1, 0, 4), Range(1, 0, 0, 2))
    book = Ledger([6, 4], 2, lease_size=100, counted=counted)
    leases = set()
    while lease := book.lease(ALICE):
        leases.add(Range(*lease[1:]))
    missing = {Range(0, 0, 0, 3), Range(0, 0, 5, 6), Range(1, 0, 2, 6), Range(1, 1, 0, 4)}
    assert leases == missing
    assert (book.num_counted, book.num_total) == (8, 20)


def test_counted_ranges_are_merged():
    book = Ledger([9], 1, lease_size=3)
    leases = [book.lease(ALICE) for _ in range(3)]
    book.count(ALICE, Progress(leases[-1].id, 9))
    assert book.counted() == (Range(0, 0, 0, 9),)
