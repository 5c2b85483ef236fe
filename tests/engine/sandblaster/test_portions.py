"""Portions of a batch: each counts once, whoever works on it, dies, or comes late."""

import random

import pytest

from engine.sandblaster.portions import Portion, PortionLedger, clipped, cut_data


def ledger(num_portions: int = 12, owners: list[int] | None = None, **options) -> PortionLedger:
    options = {"max_bundle": 3, "max_copies": 2} | options
    return PortionLedger(range(num_portions), owners or [0] * num_portions, **options)


def test_the_data_is_cut_into_portions_that_cover_every_sample_once():
    portions = cut_data([10, 3], 4)
    assert [p[1:] for p in portions] == [(0, 0, 4), (0, 4, 8), (0, 8, 10), (1, 0, 3)]
    assert [p.number for p in portions] == [0, 1, 2, 3]


def test_a_stretch_of_the_data_keeps_its_part_of_every_portion():
    portions = cut_data([10, 5], 4)
    kept = clipped(portions, 6, 12)
    assert kept == (Portion(1, 0, 6, 8), Portion(2, 0, 8, 10), Portion(3, 1, 0, 2))
    assert clipped(portions, 0, 15) == portions


@pytest.mark.parametrize("seed", range(200))
def test_every_portion_counts_exactly_once_whatever_the_order(seed):
    rng = random.Random(seed)
    portions = ledger(17, max_bundle=rng.choice([1, 4]), max_copies=rng.choice([1, 2, 3]))
    counted: list[int] = []
    busy: dict[int, list] = {}
    for _ in range(2000):
        replica = rng.randrange(4)
        if rng.random() < 0.1:  # crash
            busy.pop(replica, None)
            portions.lose(replica)
        elif len(busy.get(replica, [])) < 2 and rng.random() < 0.6:
            if work := portions.assign(replica, 4):
                busy.setdefault(replica, []).append(work)
        elif busy.get(replica):
            work = busy[replica].pop(0)
            if portions.finish(replica, work.id):
                counted += work.portions
    assert sorted(counted) == list(range(17))
    assert portions.complete


def test_a_replica_goes_on_with_the_portions_that_it_has_read_before():
    portions = ledger(8, owners=[0, 0, 1, 1, 0, 0, 1, 1], max_bundle=1)
    assert portions.assign(1, 2).portions == (2,)
    assert portions.assign(1, 2).portions == (3,)
    assert portions.assign(0, 2).portions == (0,)


def test_a_replica_without_portions_of_its_own_takes_the_last_ones_of_the_busiest():
    portions = ledger(7, owners=[0, 0, 0, 0, 0, 1, 1], max_bundle=1)
    work = portions.assign(2, 3)
    assert work.portions == (4,)
    assert portions.finish(2, work.id)
    assert portions.owner_of == (0, 0, 0, 0, 2, 1, 1)


def test_sums_are_of_several_portions_first_and_of_single_ones_near_the_end():
    portions = ledger(24, max_bundle=4)
    sizes = []
    while portions.num_open:
        sizes.append(len(portions.assign(0, 2).portions))
    assert sizes[:2] == [4, 4]
    assert sizes[-4:] == [1, 1, 1, 1]
    assert sum(sizes) == 24


def test_what_is_missing_at_the_end_is_given_to_another_replica_too_and_the_first_result_counts():
    portions = ledger(2, max_bundle=1)
    slow, other = portions.assign(0, 2), portions.assign(1, 2)
    assert portions.finish(1, other.id)
    backup = portions.assign(1, 2)
    assert backup.portions == slow.portions
    assert backup.backup
    assert portions.assign(2, 3) is None  # two copies are enough
    assert portions.finish(1, backup.id)
    assert not portions.finish(0, slow.id)
    assert portions.complete
    assert (portions.num_backups, portions.num_backups_won) == (1, 1)


def test_a_sum_with_one_portion_that_counts_already_is_refused_whole():
    portions = ledger(8, max_bundle=2)
    bundle = portions.assign(0, 1)
    assert len(bundle.portions) == 2
    while portions.num_open:
        assert portions.finish(1, portions.assign(1, 1).id)
    backup = portions.assign(1, 2)
    assert portions.finish(1, backup.id)
    assert not portions.finish(0, bundle.id)
    rest = portions.assign(2, 2)
    assert set(rest.portions) == set(bundle.portions) - set(backup.portions)
    assert portions.finish(2, rest.id)
    assert portions.complete


def test_without_copies_a_replica_that_never_answers_holds_up_the_batch_until_it_is_lost():
    portions = ledger(2, max_bundle=1, max_copies=1)
    portions.assign(0, 2)
    assert portions.finish(1, portions.assign(1, 2).id)
    assert portions.assign(1, 2) is None
    assert portions.lose(0) == [0]
    assert portions.finish(1, portions.assign(1, 2).id)
    assert portions.complete


def test_no_portion_at_or_above_the_limit_is_given_out():
    portions = ledger(6, owners=[0, 1, 0, 1, 0, 1], max_bundle=1)
    given = [portions.assign(0, 2, limit=3).portions[0] for _ in range(2)]
    assert given == [0, 2]
    assert portions.assign(0, 2, limit=3).portions == (1,)
    assert portions.assign(0, 2, limit=3) is None  # its own, all three: no copy of them
    assert portions.assign(1, 2, limit=3).backup
