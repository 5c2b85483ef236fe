"""A network that parts roles from the coordinator and not from each other (fault N5)."""

import dataclasses
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.engine.in_processes import ProcessRun, process_run
from tests.engine.proxy import Proxy
from tests.engine.rows import Listener, Meddler, When
from tests.engine.test_processes_killed import CONFIG, check_exactly_once, wait_for
from tests.kills import was_killed

TIMEOUT_S = 2.0
LONG = dataclasses.replace(CONFIG, num_epochs=40)


@contextmanager
def parted_run(
    folder, heard: Listener, *roles: tuple[str, int], timeout_s: float = TIMEOUT_S
) -> Iterator[ProcessRun]:
    """A run of which `roles` reach the coordinator through `proxies`."""
    with process_run(folder, LONG, heard, heartbeat_timeout_s=timeout_s) as run:
        proxies = {role: Proxy(run.run.spec.coordinator) for role in roles}
        run.coordinators = {role: proxy.address for role, proxy in proxies.items()}
        run.proxies = proxies
        try:
            yield run
        finally:
            for proxy in proxies.values():
                proxy.close()


@pytest.fixture
def elsewhere(monkeypatch) -> None:
    """As if roles were on another host: the coordinator hangs up, and cannot end the process."""
    monkeypatch.setattr("engine.training.end_process", lambda pid: None)


def test_a_shard_that_is_parted_from_the_coordinator_is_replaced_and_both_never_own_it(
    tmp_path, elsewhere
):
    """It serves the replicas on, until its successor ends it."""
    heard, role = Listener(), ("shard", 0)
    with parted_run(tmp_path, heard, role) as run:

        def meddle() -> None:
            wait_for(heard, "progress", 2)
            run.proxies[role].part()
            wait_for(heard, "shard_lost", 1)
            old = run.of(*role)
            del run.coordinators[role]
            run.start(*role)
            was_killed("shard", run.exit_code(old))

        run.start_all()
        run.drive_beside(meddle)
    (lost,) = heard.of("shard_lost")
    assert (lost["shard"], lost["reason"]) == (0, "silent for 2 s")
    epochs = [row["epoch"] for row in heard.of("shard_serving") if row["shard"] == 0]
    assert epochs == [1, 2]
    check_exactly_once(tmp_path, LONG)


def test_a_replica_that_is_parted_from_the_coordinator_is_fenced_and_joins_again(
    tmp_path, elsewhere
):
    """It has finished its lease by then, though it reaches the shards all the time."""
    heard, role = Listener(), ("replica", 0)
    with parted_run(tmp_path, heard, role) as run:

        def meddle() -> None:
            wait_for(heard, "progress", 2)
            run.proxies[role].part()
            wait_for(heard, "replica_settled", 1)
            run.proxies[role].heal()
            wait_for(heard, "replica_joined", 3)

        run.start_all()
        run.drive_beside(meddle)
    (lost,) = heard.of("replica_lost")
    assert (lost["replica"], lost["reason"]) == (0, "silent for 2 s")
    lives = [(row["replica"], row["incarnation"]) for row in heard.of("replica_joined")]
    assert sorted(lives) == [(0, 1), (0, 2), (1, 1)]
    check_exactly_once(tmp_path, LONG)


@pytest.mark.parametrize("seed", range(3))
def test_links_that_are_clogged_one_after_another_and_freed_in_another_order(tmp_path, seed):
    """Jepsen's swizzle-clog, each for less than it takes to be given up for dead."""
    roles = [(kind, index) for kind in ("shard", "replica") for index in range(2)]
    heard, rng = Listener(), random.Random(seed)
    with parted_run(tmp_path, heard, *roles, timeout_s=8.0) as run:

        def meddle() -> None:
            wait_for(heard, "progress", 2)
            # The fault itself is time: links stay parted for 0.2 to 1.4 s.
            for role in rng.sample(roles, len(roles)):
                run.proxies[role].part()
                time.sleep(0.2)
            for role in rng.sample(roles, len(roles)):
                run.proxies[role].heal()
                time.sleep(0.2)

        run.start_all()
        run.drive_beside(meddle)
    assert not heard.of("shard_lost")
    assert not heard.of("replica_lost")
    check_exactly_once(tmp_path, LONG)


def test_a_coordinator_that_was_away_for_longer_than_the_limit_takes_nobody_for_dead(tmp_path):
    """It waited for a disk, say. What was said meanwhile lies unread, and new ticks are due."""
    heard = Meddler(When("progress", 2, lambda row: time.sleep(1.5 * TIMEOUT_S)))
    with parted_run(tmp_path, heard) as run:
        run.start_all()
        run.drive_beside(lambda: None)
    assert not heard.of("shard_lost")
    assert not heard.of("replica_lost")
    check_exactly_once(tmp_path, LONG)
