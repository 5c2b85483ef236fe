"""The ledger: every sample of every epoch counts exactly once, whatever dies."""

import pytest

from engine.ledger import Ledger, Progress, Range, num_minibatches
from tests.engine.ledger_world import EVERY_SAMPLE, LedgerWorld, samples_of

ALICE, BOB = (0, 1), (1, 1)


def ledger(*sizes: int, epochs: int = 1, lease_size: int = 10, seed: int = 0) -> Ledger:
    return Ledger(sizes, epochs, lease_size=lease_size, seed=seed)


def all_leases(ledger: Ledger) -> list[Range]:
    leases = []
    while lease := ledger.lease(ALICE):
        leases.append(Range(*lease[1:]))
    return leases


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5])
def test_each_sample_counts_once_in_every_history_of_kills(num_replicas):
    kills = 0
    for seed in range(200):
        world = LedgerWorld(seed, num_replicas)
        world.run()
        assert world.num_pushes() == dict.fromkeys(EVERY_SAMPLE, 1), f"seed {seed}"
        assert sorted(samples_of(world.ledger.counted())) == sorted(EVERY_SAMPLE)
        kills += world.kills
    assert kills > 200


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5])
def test_a_resumed_run_reads_what_the_snapshot_lacks_and_nothing_else(num_replicas):
    resumed = 0
    for seed in range(200):
        first = LedgerWorld(seed, num_replicas)
        for _ in range(10 * (seed % 7)):
            first.step()
        counted, held = first.snapshot()
        second = LedgerWorld(seed + 1, 1 + seed % 4, counted)  # with other replicas and leases
        assert second.ledger.num_counted == len(held)
        second.run()
        assert second.num_pushes() == dict.fromkeys(EVERY_SAMPLE - held, 1), f"seed {seed}"
        resumed += bool(held)
    assert resumed > 100


def test_units_come_in_an_order_of_their_own_in_each_epoch_drawn_from_the_seed():
    def orders(seed: int) -> list[list[int]]:
        leases = all_leases(ledger(*[3] * 20, epochs=3, seed=seed))
        return [[r.unit for r in leases if r.epoch == epoch] for epoch in range(3)]

    assert all(sorted(order) == list(range(20)) for order in orders(0))
    assert len({tuple(order) for seed in range(3) for order in orders(seed)}) == 9
    assert orders(0) == orders(0)


def test_an_epoch_is_lent_out_before_the_next_one_begins():
    epochs = [lease.epoch for lease in all_leases(ledger(5, 6, 7, epochs=4, lease_size=3))]
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 1, 2, 3}


def test_no_lease_is_longer_than_the_lease_size_or_reaches_into_another_unit():
    leases = all_leases(ledger(25, 7, lease_size=10))
    assert sorted((r.unit, r.start, r.stop) for r in leases) == [
        (0, 0, 10),
        (0, 10, 20),
        (0, 20, 25),
        (1, 0, 7),
    ]


def test_samples_count_as_far_as_the_progress_reaches():
    book = ledger(20)
    lease = book.lease(ALICE)
    book.count(ALICE, Progress(lease.id, 4))
    assert (book.num_counted, book.num_leased) == (4, 10)
    assert book.counted() == (Range(0, 0, 0, 4),)


def test_progress_in_a_later_lease_counts_the_earlier_ones_whole():
    book = ledger(20)
    book.lease(ALICE)
    later = book.lease(ALICE)
    book.count(ALICE, Progress(later.id, 12))
    assert book.counted() == (Range(0, 0, 0, 12),)


def test_counting_goes_neither_backwards_nor_beyond_the_lease():
    book = ledger(20)
    lease = book.lease(ALICE)
    for upto, counted in [(6, 6), (3, 6), (6, 6), (99, 10), (2, 10)]:
        book.count(ALICE, Progress(lease.id, upto))
        assert book.num_counted == counted


def test_a_holder_counts_only_its_own_leases():
    book = ledger(20)
    lease = book.lease(ALICE)
    book.count(BOB, Progress(lease.id, 5))
    assert book.num_counted == 0


def test_what_a_lost_replica_had_not_applied_is_lent_again_first():
    book = ledger(40)
    first, second = book.lease(ALICE), book.lease(ALICE)
    assert book.settle(ALICE, Progress(first.id, 3)) == 17
    assert book.num_leased == 3
    again = [book.lease(BOB), book.lease(BOB)]
    assert [(r.start, r.stop) for r in again] == [(3, 10), (second.start, second.stop)]


def test_a_replica_that_had_applied_nothing_gives_everything_back():
    book = ledger(10)
    book.lease(ALICE)
    assert book.settle(ALICE, None) == 10
    assert book.lease(BOB)[1:] == (0, 0, 0, 10)


def test_settling_twice_changes_nothing():
    book = ledger(10)
    lease = book.lease(ALICE)
    book.settle(ALICE, Progress(lease.id, 4))
    assert book.settle(ALICE, Progress(lease.id, 9)) == 0
    assert book.num_counted == 4


def test_nothing_is_lent_while_everything_is_lent_and_it_is_complete_only_when_all_counts():
    book = ledger(10)
    lease = book.lease(ALICE)
    assert book.lease(BOB) is None
    assert not book.complete
    book.count(ALICE, Progress(lease.id, 10))
    assert book.complete
    assert book.lease(BOB) is None


def test_an_empty_unit_is_never_lent():
    assert all_leases(ledger(0, 3, 0)) == [Range(0, 1, 0, 3)]


def test_the_leased_fraction_moves_with_leases_and_returns_only():
    book = ledger(30)
    lease = book.lease(ALICE)
    leased = []
    for upto in range(11):
        book.count(ALICE, Progress(lease.id, upto))
        leased.append(book.num_leased)
    assert set(leased) == {10}
    book.lease(BOB)
    assert book.num_leased == 20
    book.settle(BOB, None)
    assert book.num_leased == 10


def test_a_part_of_a_lease_stands_in_the_run_where_the_whole_of_it_stood():
    whole = ledger(25, 10)
    fractions = {}
    while lease := whole.lease(ALICE):
        fractions[lease[1:]] = whole.fraction(lease)
        whole.count(ALICE, Progress(lease.id, lease.stop))
    for (epoch, unit, start, stop), fraction in fractions.items():
        done = [Range(*key) for key in fractions if fractions[key] < fraction]
        done.append(Range(epoch, unit, start, start + 3))
        resumed = Ledger((25, 10), 1, lease_size=10, counted=done)
        rest = resumed.lease(ALICE)
        assert rest[1:] == (epoch, unit, start + 3, stop)
        assert resumed.fraction(rest) == fraction


def test_the_number_of_minibatches_follows_from_what_counts():
    assert num_minibatches([Range(0, 0, 0, 40), Range(0, 1, 0, 8), Range(1, 1, 28, 30)], 4) == 13
