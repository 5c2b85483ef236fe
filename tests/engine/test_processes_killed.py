"""Real processes killed at the worst moments: every push is applied once, to the same bits."""

import dataclasses
import json
import os
import signal
import time

import pytest
import torch

from engine import checkpoint
from engine.config import DownpourConfig, MomentumConfig
from engine.replay import replay
from tests.engine.in_processes import BLOCK, ProcessRun, Stop, process_run
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES, classifier
from tests.engine.rows import Listener
from tests.engine.threaded import latest
from tests.kills import was_killed

PUSHES_PER_EPOCH = sum(-(-size // 4) for size in UNIT_SIZES)
CONFIG = DownpourConfig(
    minibatch_size=4,
    num_epochs=6,
    rule=MomentumConfig(learning_rate=0.05),
    validate_every_epochs=99.0,
    keep_checkpoints=99,
    record=True,
)


def check_exactly_once(folder, config=CONFIG, *, in_order: bool = True) -> None:
    """Each mini-batch was one push, each push one update of every shard, in the order told.

    Where memory is lost, pushes that were fetched and not durable may come again `in_order` or not.
    """
    end = latest(folder)
    assert end.final
    assert end.num_counted == config.num_epochs * NUM_SAMPLES
    versions = [shard.version for shard in end.shards]
    assert versions == [config.num_epochs * PUSHES_PER_EPOCH] * 2
    for shard, version in enumerate(versions):
        assert len(set(applied(folder, shard).values())) == version
    if not in_order:
        return
    first = checkpoint.read(folder / "checkpoints" / "000000")
    vectors = [(first.read_shard(index), 0) for index in range(2)]
    replayed = replay(classifier(), config, folder / "record" / "000000", vectors, versions)
    assert torch.equal(replayed, end.read_parameters())


def applied(folder, shard: int) -> dict[int, tuple[int, int, int]]:
    """Version of a shard -> id of the push that made it; of two owners the later one knows."""
    record = folder / "record" / "000000" / f"shard-{shard:02d}.jsonl"
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    return {row[1]: tuple(row[2:5]) for row in rows}


def in_push(number: int, shard: int) -> Stop:
    """In the middle of the second block of a push."""
    part = classifier().layout.slices(2)[shard]
    num_blocks = -(-(part.stop - part.start) // BLOCK)
    return Stop("block", (number - 1) * num_blocks + 2)


def test_two_shards_killed_at_once_in_the_middle_of_a_push(tmp_path):
    heard = Listener()
    with process_run(tmp_path, CONFIG, heard) as run:
        run.stops = {("shard", index): [in_push(18, index)] for index in range(2)}

        def meddle() -> None:
            victims = [run.stopped("shard", index) for index in range(2)]
            for index in range(2):
                run.kill_stopped("shard", index)
            assert [run.exit_code(victim) for victim in victims] == [-9, -9]

        run.start_all()
        run.drive_beside(meddle)
    assert sorted(row["shard"] for row in heard.of("shard_lost")) == [0, 1]
    assert {(row["role"], row["code"]) for row in heard.of("process_ended")} == {("shard", -9)}
    check_exactly_once(tmp_path)


def test_a_shard_killed_while_it_finishes_the_push_of_its_killed_predecessor(tmp_path):
    heard = Listener()
    with process_run(tmp_path, CONFIG, heard) as run:
        run.stops = {("shard", 0): [Stop("block", 100), Stop("recovery", 1), Stop("block", 1)]}

        def meddle() -> None:
            for _ in range(3):
                victim = run.stopped("shard", 0)
                run.kill_stopped("shard", 0)
                assert run.exit_code(victim) == -9
                wait_for_successor(run, victim, "shard", 0)

        run.start_all()
        run.drive_beside(meddle)
    last = [row for row in heard.of("shard_serving") if row["shard"] == 0][-1]
    assert last["epoch"] == 4
    assert last["restored_from"] == "memory, after finishing an interrupted push"
    check_exactly_once(tmp_path)


def test_all_replicas_killed_with_a_push_in_their_hands(tmp_path):
    heard = Listener()
    with process_run(tmp_path, CONFIG, heard) as run:
        run.stops = {("replica", index): [Stop("push", 10)] * 2 for index in range(2)}

        def meddle() -> None:
            for _ in range(2):
                victims = [run.stopped("replica", index) for index in range(2)]
                for index in range(2):
                    run.kill_stopped("replica", index)
                for index, victim in enumerate(victims):
                    wait_for_successor(run, victim, "replica", index)

        run.start_all()
        run.drive_beside(meddle)
    assert sorted(row["replica"] for row in heard.of("replica_lost")) == [0, 0, 1, 1]
    assert len(heard.of("replica_settled")) == 4
    assert [row["code"] for row in heard.of("process_ended")] == [-9] * 4
    check_exactly_once(tmp_path)


def wait_for_successor(run: ProcessRun, victim, role: str, index: int) -> None:
    while run.of(role, index) is victim:
        time.sleep(0.002)


@pytest.mark.parametrize("point", ["hold", "cut", "snapshot"])
def test_a_shard_killed_during_a_snapshot(tmp_path, point):
    config, heard = (
        dataclasses.replace(CONFIG, checkpoint_every_s=0.1, max_checkpoint_share=1.0),
        Listener(),
    )
    with process_run(tmp_path, config, heard) as run:
        run.stops = {("shard", 1): [Stop(point, 2)]}
        run.start_all()
        run.drive_beside(lambda: run.kill_stopped("shard", 1))
    assert [row["shard"] for row in heard.of("shard_lost")] == [1]
    taken = [row["path"][-6:] for row in heard.of("checkpoint")]
    assert taken[0] == "000001"
    assert "000002" not in taken  # the one that was under way
    check_exactly_once(tmp_path, config)


@pytest.mark.parametrize("point", ["block", "acknowledgement"])
def test_a_stopped_shard_is_ended_by_its_successor_and_never_writes_again(tmp_path, point):
    heard = Listener()
    with process_run(tmp_path, CONFIG, heard) as run:
        run.stops = {("shard", 0): [Stop(point, 100)]}

        def meddle() -> None:
            old = run.stopped("shard", 0)
            run.start("shard", 0)
            was_killed("shard", run.exit_code(old))

        run.start_all()
        run.drive_beside(meddle)
    (lost,) = heard.of("shard_lost")
    assert lost["reason"] == "a successor connected"
    serving = [row for row in heard.of("shard_serving") if row["shard"] == 0][-1]
    assert (serving["epoch"], "interrupted" in serving["restored_from"]) == (2, point == "block")
    check_exactly_once(tmp_path)


@pytest.mark.parametrize("replaced", [True, False])
def test_a_stopped_replica_is_fenced_and_the_push_it_sends_on_waking_is_refused(
    tmp_path, monkeypatch, replaced
):
    # As if it were on another host: the coordinator hangs up, and cannot end the process.
    monkeypatch.setattr("engine.training.end_process", lambda pid: None)
    config, heard = dataclasses.replace(CONFIG, num_epochs=20), Listener()
    with process_run(tmp_path, config, heard, num_replicas=1, heartbeat_timeout_s=2.0) as run:
        run.stops = {("replica", 0): [Stop("push", 20)]}

        def meddle() -> None:
            woken = run.stopped("replica", 0)
            wait_for(heard, "replica_settled", 1)
            if replaced:
                run.start("replica", 0)
                wait_for(heard, "replica_joined", 2)
            os.kill(woken.pid, signal.SIGCONT)
            wait_for(heard, "push_refused", 1)
            assert run.exit_code(woken) == 0  # it went home by itself

        run.start_all()
        run.drive_beside(meddle)
    (lost,) = heard.of("replica_lost")
    assert lost["reason"] == "silent for 2 s"
    (refused,) = heard.of("push_refused")
    assert (refused["replica"], refused["pushes"]) == (0, 1)
    assert "replica 0 incarnation 1" in refused["message"]
    lives = [(row["incarnation"], row["pid"] == lost["pid"]) for row in heard.of("replica_joined")]
    assert lives == [(1, True), (2, not replaced)]
    check_exactly_once(tmp_path, config)


def wait_for(heard: Listener, event: str, number: int) -> None:
    deadline = time.monotonic() + 30
    while len(heard.of(event)) < number:
        assert time.monotonic() < deadline, f"{event} did not come"
        time.sleep(0.005)
