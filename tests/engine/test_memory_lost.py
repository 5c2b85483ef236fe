"""A shard killed with kill -9 whose memory is lost with it, at chosen points of its work."""

import dataclasses

import pytest

from tests.engine.in_processes import Stop, process_run
from tests.engine.rows import Listener
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
def test_its_successor_has_the_log_and_every_push_is_applied_once(tmp_path, stops):
    heard = Listener()
    with process_run(tmp_path, POWER, heard) as run:
        run.stops = {("shard", 1): list(stops)}

        def meddle() -> None:
            for _ in stops:
                victim = run.stopped("shard", 1)
                (run.run.spec.memory / "shard-01.state").unlink()
                run.kill_stopped("shard", 1)
                assert run.exit_code(victim) == -9
                wait_for_successor(run, victim, "shard", 1)

        run.start_all()
        run.drive_beside(meddle)
    assert len(heard.of("shard_lost")) == len(stops)
    last = [row for row in heard.of("shard_serving") if row["shard"] == 1][-1]
    assert last["restored_from"].startswith("checkpoint")
    assert last["epoch"] == len(stops) + 1
    check_exactly_once(tmp_path, POWER)
