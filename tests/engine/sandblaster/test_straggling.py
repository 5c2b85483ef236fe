"""Seconds of a batch in virtual time, against the least possible for the replicas' speeds."""

import pytest

from tests.engine.sandblaster.virtual import TICK_S, VirtualCluster

QUICK_S, NUM_PORTIONS = 0.02, 64


def bound(*seconds: float) -> float:
    """The ideal for replicas that take so long, 2 % of messages, and an end of 1.5 portions."""
    ideal = NUM_PORTIONS / sum(1 / each for each in seconds)
    return 1.02 * ideal + 1.5 * QUICK_S


@pytest.mark.parametrize("slowdown", [1.0, 1.5, 3.0, 4.0, 10.0, 100.0])
@pytest.mark.parametrize("num_replicas", [2, 4])
def test_a_slow_replica_costs_hardly_more_than_its_speed(num_replicas, slowdown):
    check_slow(VirtualCluster([QUICK_S] * num_replicas, NUM_PORTIONS), slowdown)


@pytest.mark.parametrize("slowdown", [1.0, 2.0, 4.0])
def test_in_order_too_while_the_window_holds_what_is_ahead_of_it(slowdown):
    check_slow(VirtualCluster([QUICK_S] * 2, NUM_PORTIONS, deterministic=True), slowdown)


def check_slow(cluster: VirtualCluster, slowdown: float) -> None:
    cluster.evaluate()
    cluster.seconds[-1] *= slowdown
    cluster.evaluate()  # here the coordinator learns of it
    for _ in range(8):
        assert cluster.evaluate() < bound(*cluster.seconds), cluster.rows[-1]


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("eighth", range(8))
def test_a_replica_that_stops_anywhere_costs_no_more_than_it_would_have_done(eighth, deterministic):
    cluster = VirtualCluster([QUICK_S] * 2, NUM_PORTIONS, deterministic=deterministic)
    cluster.evaluate()
    cluster.stop(1, cluster.now + eighth / 8 * NUM_PORTIONS * QUICK_S / 2)
    for _ in range(2):
        # That it is late may be seen a tick later, when nobody says anything in between.
        assert cluster.evaluate() < bound(QUICK_S) + TICK_S, cluster.rows[-1]
    for _ in range(2):
        assert cluster.evaluate() < bound(QUICK_S), cluster.rows[-1]


def test_without_backup_tasks_a_replica_that_stopped_is_waited_for():
    cluster = VirtualCluster([QUICK_S] * 2, NUM_PORTIONS, max_copies=1)
    cluster.evaluate()
    cluster.stop(1, cluster.now)
    assert cluster.evaluate(patience_s=100.0) > 100.0


def long_stopped() -> VirtualCluster:
    """Two replicas, of which the second has not moved for five evaluations."""
    cluster = VirtualCluster([QUICK_S] * 2, NUM_PORTIONS)
    cluster.evaluate()
    cluster.stop(1, cluster.now)
    for _ in range(5):
        cluster.evaluate()
    return cluster


def test_a_replica_that_goes_on_after_a_stop_soon_does_its_part_again():
    cluster = long_stopped()
    cluster.resume(1, QUICK_S)
    cluster.evaluate()
    assert cluster.evaluate() < bound(QUICK_S, QUICK_S)


def test_a_successor_is_not_judged_by_who_was_there_before():
    cluster = long_stopped()
    cluster.replace(1, QUICK_S)
    cluster.given.clear()
    assert cluster.evaluate() < bound(QUICK_S, QUICK_S)
    assert cluster.given[:4] == [(0, 8), (1, 8)] * 2


def test_replicas_of_one_speed_back_up_nothing():
    cluster = VirtualCluster([QUICK_S] * 3, NUM_PORTIONS)
    for _ in range(5):
        cluster.evaluate()
    assert [row["backups"] for row in cluster.rows] == [0] * 5
