"""A shard killed with kill -9 at chosen points of its work, whose memory may be lost with it."""

import dataclasses
from pathlib import Path

import pytest

from tests.engine.in_processes import Stop, process_run
from tests.engine.rows import Listener, Row
from tests.engine.test_processes_killed import (
    CONFIG,
    check_exactly_once,
    in_push,
    wait_for_successor,
)

POWER = dataclasses.replace(
    CONFIG, durability="power", checkpoint_every_s=0.2, max_checkpoint_share=1.0
)


@pytest.mark.parametrize(
    "stops",
    [
        [in_push(60, shard=1)],
        [Stop("acknowledgement", 60)],
        [Stop("rotation", 2)],
        [Stop("snapshot", 2)],
        [in_push(60, shard=1), Stop("repetition", 1), in_push(20, shard=1)],
    ],
    ids=["in a push", "before the answer", "in a rotation", "in a snapshot", "in its recovery"],
)
@pytest.mark.parametrize("num_replicas", [1, 2])
def test_its_successor_has_the_log_and_every_push_is_applied_once(tmp_path, stops, num_replicas):
    last = killed_and_served_again(tmp_path, stops, [True] * len(stops), num_replicas)
    assert last["restored_from"].startswith("checkpoint")


@pytest.mark.parametrize(
    "first", [Stop("acknowledgement", 60), in_push(60, shard=1)], ids=["applied", "half applied"]
)
def test_what_was_not_in_the_log_is_there_once_a_successor_has_the_memory(tmp_path, first):
    last = killed_and_served_again(tmp_path, [first, Stop("acknowledgement", 1)], [False, True])
    assert last["restored_from"].startswith("checkpoint")


def killed_and_served_again(
    folder: Path, stops: list[Stop], lost: list[bool], num_replicas: int = 2
) -> Row:
    """Kill shard 1 at each of `stops`, with its memory or without; return how it last began."""
    heard = Listener()
    with process_run(folder, POWER, heard, num_replicas=num_replicas) as run:
        run.stops = {("shard", 1): list(stops)}

        def meddle() -> None:
            for memory_lost in lost:
                victim = run.stopped("shard", 1)
                if memory_lost:
                    (run.run.spec.memory / "shard-01.state").unlink()
                run.kill_stopped("shard", 1)
                assert run.exit_code(victim) == -9
                wait_for_successor(run, victim, "shard", 1)

        run.start_all()
        run.drive_beside(meddle)
    assert len(heard.of("shard_lost")) == len(stops)
    last = [row for row in heard.of("shard_serving") if row["shard"] == 1][-1]
    assert last["epoch"] == len(stops) + 1
    # Of several replicas, the pushes that no log had may come again in another order.
    check_exactly_once(folder, POWER, in_order=num_replicas == 1)
    return last
