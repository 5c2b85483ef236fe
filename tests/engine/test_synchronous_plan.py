"""Who reads what in synchronous training: everything once, and everybody agrees."""

from collections import Counter

import pytest

from engine.config import ScheduleConfig, SynchronousConfig
from engine.ledger import Ledger
from engine.synchronous.plan import Plan, Step
from tests.engine.problems import UNIT_SIZES

CONFIG = SynchronousConfig(minibatch_size=4, num_epochs=3)
RANKS = [1, 2, 3, 5]


def samples(steps: list[Step]) -> Counter[tuple[int, int, int]]:
    """(epoch, unit, index) of every sample read."""
    return Counter(
        (share.lease.epoch, share.lease.unit, index)
        for step in steps
        for share in step.shares
        if share
        for index in range(share.start, share.stop)
    )


ALL = Counter(
    (epoch, unit, index)
    for epoch in range(CONFIG.num_epochs)
    for unit, size in enumerate(UNIT_SIZES)
    for index in range(size)
)


@pytest.mark.parametrize("num_ranks", RANKS)
def test_each_sample_is_read_once_per_epoch(num_ranks):
    assert samples(list(Plan(UNIT_SIZES, CONFIG, num_ranks, ()).steps())) == ALL


@pytest.mark.parametrize("num_ranks", RANKS)
@pytest.mark.parametrize("others", RANKS)
def test_a_run_resumed_at_any_step_by_any_number_reads_the_rest(num_ranks, others):
    plan = Plan(UNIT_SIZES, CONFIG, num_ranks, ())
    steps = list(plan.steps())
    for done, step in enumerate(steps, 1):
        plan.count(step)
        rest = list(Plan(UNIT_SIZES, CONFIG, others, plan.counted()).steps())
        assert samples(steps[:done]) + samples(rest) == ALL
    assert plan.num_counted == plan.num_total
    assert rest == []


def test_one_rank_reads_in_the_order_of_a_plain_loop():
    ledger = Ledger(UNIT_SIZES, CONFIG.num_epochs, lease_size=32, seed=CONFIG.seed)
    leases = []
    while lease := ledger.lease((0, 1)):
        leases.append(lease)
    read = [step.shares[0] for step in Plan(UNIT_SIZES, CONFIG, 1, ()).steps()]
    assert [share.lease for share in read if share and share.start == share.lease.start] == leases


def test_everybody_works_out_the_same_steps_however_far_they_have_counted():
    schedule = ScheduleConfig(anneal="linear")
    config = SynchronousConfig(minibatch_size=4, num_epochs=3, schedule=schedule)
    eager, lazy = (Plan(UNIT_SIZES, config, 3, ()) for _ in range(2))
    counted = []
    for step in eager.steps():
        eager.count(step)
        counted.append(step)
    assert counted == list(lazy.steps())
    scales = [step.scale for step in counted]
    assert scales == sorted(scales, reverse=True)
    assert scales[0] == 1.0 > scales[-1] > 0.0


def test_ranks_are_never_more_than_one_lease_apart():
    for step in Plan(UNIT_SIZES, CONFIG, 2, ()).steps():
        assert step.num_samples == sum(s.num_samples for s in step.shares if s)
        assert all(0 < s.num_samples <= CONFIG.minibatch_size for s in step.shares if s)
