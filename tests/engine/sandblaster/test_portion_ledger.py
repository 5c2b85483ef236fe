"""Portions of a batch: each counts once, whoever works on it, dies, or comes late."""

import random

import pytest

from engine.sandblaster.in_hand import Work
from engine.sandblaster.paces import Paces
from engine.sandblaster.portion_ledger import PortionLedger

TWO = (0, 1)


def ledger(
    num_portions: int = 12,
    owners: list[int] | None = None,
    paces: Paces | None = None,
    **options,
) -> PortionLedger:
    options = {"max_bundle": 3, "max_copies": 2} | options
    owners = owners or [0] * num_portions
    return PortionLedger(range(num_portions), owners, paces or Paces(), **options)


def known(*seconds: float) -> Paces:
    """Replicas that take so many seconds for a portion."""
    paces = Paces()
    for replica, each in enumerate(seconds):
        paces.learn(replica, 1, each)
    return paces


@pytest.mark.parametrize("seed", range(300))
def test_every_portion_counts_exactly_once_whatever_the_order_and_the_estimates(seed):
    rng = random.Random(seed)
    portions = ledger(17, max_bundle=rng.choice([1, 4]), max_copies=rng.choice([1, 2, 3]))
    counted: list[int] = []
    busy: dict[int, list[Work]] = {}
    now = 0.0
    for _ in range(2000):
        now += rng.expovariate(1.0) * rng.choice([0, 1, 100])
        replica = rng.randrange(4)
        if rng.random() < 0.1:  # crash
            busy.pop(replica, None)
            portions.lose(replica)
        elif len(busy.get(replica, [])) < 2 and rng.random() < 0.6:
            if work := portions.assign(replica, range(4), now):
                busy.setdefault(replica, []).append(work)
        elif busy.get(replica):
            work = busy[replica].pop(0)
            if portions.finish(replica, work.id, rng.expovariate(rng.choice([0.01, 1.0])), now):
                counted += work.portions
    assert sorted(counted) == list(range(17))
    assert portions.complete


@pytest.mark.parametrize("seed", range(300))
def test_somebody_works_until_all_is_done_whatever_is_believed_of_the_replicas(seed):
    rng = random.Random(seed)
    paces = known(*(10 ** rng.uniform(-3, 3) for _ in range(3)))
    portions = ledger(9, paces=paces, max_copies=rng.choice([1, 2]))
    in_hand: list[tuple[int, Work]] = []
    now = 0.0
    while not portions.complete:
        for replica in range(3):
            while work := portions.assign(replica, range(3), now):
                in_hand.append((replica, work))
        assert in_hand, "all replicas leave it to the others"
        now += rng.expovariate(1.0)
        replica, work = in_hand.pop(rng.randrange(len(in_hand)))
        portions.finish(replica, work.id, rng.expovariate(1.0), now)


def test_a_replica_goes_on_with_the_portions_that_it_has_read_before():
    portions = ledger(8, owners=[0, 0, 1, 1, 0, 0, 1, 1], max_bundle=1)
    assert portions.assign(1, TWO, 0.0).portions == (2,)
    assert portions.assign(1, TWO, 0.0).portions == (3,)
    assert portions.assign(0, TWO, 0.0).portions == (0,)


def test_a_replica_without_portions_of_its_own_takes_the_last_ones_of_the_busiest():
    portions = ledger(7, owners=[0, 0, 0, 0, 0, 1, 1], max_bundle=1)
    work = portions.assign(2, range(3), 0.0)
    assert work.portions == (4,)
    assert portions.finish(2, work.id, 1.0, 1.0)
    assert portions.owner_of == (0, 0, 0, 0, 2, 1, 1)


def test_sums_are_of_several_portions_first_and_of_single_ones_near_the_end():
    portions, sizes = ledger(24, max_bundle=4), []
    while work := portions.assign(0, TWO, 0.0):
        sizes.append(len(work.portions))
        portions.finish(0, work.id, 1.0, 0.0)
    assert sizes == [4, 4, 4, 3, 2, 1, 1, 1, 1, 1, 1, 1]


def test_a_replica_is_given_portions_by_its_share_of_the_speed():
    portions = ledger(40, paces=known(1.0, 4.0), max_bundle=40)
    assert len(portions.assign(0, TWO, 0.0).portions) == 16  # half of 4/5 of 40
    assert len(portions.assign(1, TWO, 0.0).portions) == 4


def test_a_replica_has_the_next_portion_in_hand_if_the_others_will_leave_it_one():
    portions = ledger(4, paces=known(1.0, 3.0), max_bundle=1)
    assert portions.assign(1, TWO, 0.0)
    assert portions.assign(0, TWO, 0.0)
    assert portions.assign(1, TWO, 0.0) is None
    assert portions.assign(0, TWO, 0.0)
    assert portions.assign(0, TWO, 0.0) is None  # two are enough


def test_a_slow_replica_leaves_the_last_portions_to_a_quick_one_unless_that_is_late():
    portions = ledger(4, paces=known(1.0, 4.0), max_bundle=1)
    first = portions.assign(1, TWO, -4.0)  # all get something of each batch
    assert portions.finish(1, first.id, 4.0, 0.0)
    portions.assign(0, TWO, 0.0)
    assert portions.assign(1, TWO, 0.0) is None
    assert portions.assign(1, TWO, 1.1) is None
    assert portions.assign(1, TWO, 2.5)


def test_what_is_missing_at_the_end_is_given_to_another_replica_too_and_the_first_result_counts():
    portions = ledger(2, paces=known(4.0, 1.0, 1.0), owners=[0, 1], max_bundle=1)
    other = portions.assign(1, range(3), 0.0)
    slow = portions.assign(0, (0,), 0.0)
    assert portions.finish(1, other.id, 1.0, 1.0)
    backup = portions.assign(1, range(3), 1.0)
    assert backup.portions == slow.portions
    assert backup.backup
    assert portions.assign(2, range(3), 1.0) is None  # two copies are enough
    assert portions.finish(1, backup.id, 1.0, 2.0)
    assert not portions.finish(0, slow.id, 4.0, 4.0)
    assert portions.complete
    assert (portions.num_backups, portions.num_backups_won) == (1, 1)


def test_nobody_backs_up_what_will_be_done_sooner_by_who_has_it_unless_that_is_late():
    portions = ledger(1, paces=known(4.0, 3.0), max_bundle=1)
    assert portions.assign(0, (0,), 0.0)
    assert portions.assign(1, TWO, 2.0) is None
    assert portions.assign(1, TWO, 4.5) is None
    assert portions.assign(1, TWO, 8.0).backup


@pytest.mark.parametrize(("holder_s", "backed_up"), [(1.0, False), (1.2, False), (1.5, True)])
def test_a_backup_is_to_be_sooner_by_more_than_the_messages_take(holder_s, backed_up):
    portions = ledger(1, paces=known(holder_s, 1.0), max_bundle=1)
    assert portions.assign(0, (0,), 0.0)
    assert (portions.assign(1, TWO, 0.0) is not None) == backed_up


def test_first_is_backed_up_what_will_take_longest():
    portions = ledger(3, owners=[0, 1, 2], paces=known(5.0, 9.0, 1.0), max_bundle=1)
    for replica in range(3):
        last = portions.assign(replica, (replica,), 0.0)
    assert portions.finish(2, last.id, 1.0, 1.0)
    assert portions.assign(2, range(3), 1.0).portions == (1,)


def test_a_sum_with_one_portion_that_counts_already_is_refused_whole():
    portions = ledger(8, max_bundle=2)
    bundle = portions.assign(0, (0,), 0.0)
    assert len(bundle.portions) == 2
    while work := portions.assign(1, (1,), 10.0):
        assert portions.finish(1, work.id, 0.0, 10.0)
        if work.backup:
            break
    assert set(work.portions) < set(bundle.portions)
    assert not portions.finish(0, bundle.id, 20.0, 20.0)
    rest = portions.assign(2, (2,), 20.0)
    assert set(rest.portions) == set(bundle.portions) - set(work.portions)
    assert portions.finish(2, rest.id, 1.0, 21.0)
    assert portions.complete


def test_what_is_left_of_a_sum_that_will_be_refused_is_not_waited_for():
    portions = ledger(4, paces=known(10.0, 1.0), max_bundle=2)
    bundle = portions.assign(0, (0,), 0.0)
    assert len(bundle.portions) == 2
    for _ in range(2):
        work = portions.assign(1, (1,), 0.0)
        assert portions.finish(1, work.id, 1.0, 0.0)
    assert work.backup
    last = portions.assign(1, (1,), 19.9)
    assert set(work.portions + last.portions) == set(bundle.portions)


def test_without_copies_a_replica_that_never_answers_holds_up_the_batch_until_it_is_lost():
    portions = ledger(2, max_bundle=1, max_copies=1)
    portions.assign(0, TWO, 0.0)
    assert portions.finish(1, portions.assign(1, TWO, 0.0).id, 1.0, 1.0)
    assert portions.assign(1, TWO, 1e9) is None
    assert portions.lose(0) == [0]
    assert portions.finish(1, portions.assign(1, (1,), 1e9).id, 1.0, 1e9)
    assert portions.complete


def test_no_portion_at_or_above_the_limit_is_given_out():
    portions = ledger(6, owners=[0, 1, 0, 1, 0, 1], max_bundle=1)
    given = [portions.assign(0, (0,), 0.0, limit=3).portions[0] for _ in range(2)]
    assert given == [0, 2]
    assert portions.assign(1, TWO, 0.0, limit=3).portions == (1,)
    assert portions.assign(1, TWO, 0.0, limit=3) is None
    assert portions.assign(2, range(3), 10.0, limit=3).backup
