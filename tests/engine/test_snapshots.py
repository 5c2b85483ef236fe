"""Snapshots: when they are due, what they contain, and what happens when one fails."""

import pytest

from engine.config import DownpourConfig
from engine.instructions import RunFailedError
from engine.ledger import Range
from tests.engine.conversation import HOUR, Conversation


def every(seconds: float = HOUR, epochs: float = 99.0, num_epochs: int = 1) -> Conversation:
    return Conversation(
        DownpourConfig(
            minibatch_size=5,
            num_epochs=num_epochs,
            checkpoint_every_s=seconds,
            validate_every_epochs=epochs,
        )
    )


def requested(talk: Conversation, shard: int) -> list[int]:
    return [message["id"] for message in talk.sent(shard, "snapshot")]


def test_every_shard_is_asked_when_the_interval_has_passed():
    talk = every(seconds=5)
    shards, replicas = talk.all_join()
    talk.tick_with_heartbeats(4.9, shards + replicas)
    assert not requested(talk, shards[0])
    talk.tick_with_heartbeats(0.1, shards + replicas)
    assert [requested(talk, shard) for shard in shards] == [[1], [1]]


def test_one_snapshot_at_a_time():
    talk = every(seconds=5)
    shards, replicas = talk.all_join()
    talk.tick_with_heartbeats(5, shards + replicas)
    talk.snapshotted(shards[0], 1)
    assert not talk.commits()
    talk.tick_with_heartbeats(9, shards + replicas)
    assert not requested(talk, shards[0])
    talk.snapshotted(shards[1], 1)
    assert talk.commits()
    talk.tick_with_heartbeats(4.9, shards + replicas)
    assert not requested(talk, shards[0])  # the interval counts from the last one's end
    talk.tick_with_heartbeats(0.1, shards + replicas)
    assert requested(talk, shards[0]) == [2]


def test_no_snapshot_before_every_shard_serves():
    talk = every(seconds=5)
    shard = talk.shard(0)
    talk.tick_with_heartbeats(9, [shard])
    assert not requested(talk, shard)


def test_a_snapshot_counts_what_the_shards_say_it_contains():
    talk = every(seconds=5)
    shards, (alice, bob) = talk.all_join()
    first, second = talk.lease(alice), talk.lease(bob)
    talk.tick_with_heartbeats(5, [*shards, alice, bob])
    talk.progress(alice, first, first.stop)  # reported after the shards had copied
    talk.snapshotted(shards[0], 1, (0, 1, first.id, 5))
    talk.snapshotted(shards[1], 1, (1, 1, second.id, second.start + 5))
    (commit,) = talk.commits()
    assert commit.id == 1
    assert not commit.final
    assert sorted(commit.counted) == sorted(
        Range(0, lease.unit, lease.start, lease.start + 5) for lease in (first, second)
    )
    assert commit.num_counted == 10
    assert [message["version"] for message in commit.shards] == [9, 9]


def test_a_validation_is_due_each_time_its_part_of_an_epoch_counts():
    talk = every(epochs=0.5, num_epochs=2)
    shards, (alice, _) = talk.all_join()
    validated = []
    while lease := talk.lease(alice):
        talk.progress(alice, lease, lease.stop)
        talk.tick()
        if ids := requested(talk, shards[0]):
            for shard in shards:
                talk.snapshotted(shard, ids[0])
            validated.append((talk.commits()[0].num_counted, talk.commits()[0].validate))
            talk.coordinator.measured(final=False)
    assert validated == [(40, True), (80, True), (120, True), (160, True)]


def test_while_a_validation_runs_no_other_snapshot_is_taken():
    talk = every(seconds=5, epochs=0.5)
    shards, replicas = talk.all_join()
    for _ in range(4):
        lease = talk.lease(replicas[0])
        talk.progress(replicas[0], lease, lease.stop)
    talk.tick()
    for shard in shards:
        talk.snapshotted(shard, 1)
    talk.tick_with_heartbeats(9, shards + replicas)
    assert not requested(talk, shards[0])
    talk.coordinator.measured(final=False)
    talk.tick()
    assert requested(talk, shards[0]) == [2]


def test_a_resumed_run_validates_where_the_whole_one_would():
    counted = (Range(0, 0, 0, 30),)
    config = DownpourConfig(
        minibatch_size=5, num_epochs=1, checkpoint_every_s=HOUR, validate_every_epochs=0.5
    )
    talk = Conversation(config, counted=counted)
    shards, (alice, _) = talk.all_join()
    assert talk.tick() == []
    lease = talk.lease(alice)
    talk.progress(alice, lease, lease.stop)
    assert talk.ledger.num_counted == 40
    talk.tick()
    assert requested(talk, shards[0])


def test_when_a_shard_is_lost_during_a_snapshot_it_is_asked_for_again():
    talk = every(seconds=5)
    shards, replicas = talk.all_join()
    talk.tick_with_heartbeats(5, shards + replicas)
    talk.snapshotted(shards[0], 1)
    talk.lose(shards[1])
    talk.tick_with_heartbeats(1, [shards[0], *replicas])
    assert not requested(talk, shards[0])
    successor = talk.shard(1)
    talk.tick()
    assert [requested(talk, shard) for shard in (shards[0], successor)] == [[2], [2]]


def test_when_a_shard_is_lost_during_a_snapshot_the_others_hold_pushes_back_no_longer():
    talk = every(seconds=5)
    shards, replicas = talk.all_join()
    talk.tick_with_heartbeats(5, shards + replicas)
    (request,) = talk.sent(shards[0])
    talk.lose(shards[1])
    assert talk.sent(shards[0]) == [{"op": "release", "id": request["id"]}]
    successor = talk.shard(1)
    talk.lose(successor)
    assert talk.sent(shards[0], "release") == []  # nothing was under way


def test_late_answers_to_an_abandoned_snapshot_are_ignored():
    talk = every(seconds=5)
    shards, replicas = talk.all_join()
    talk.tick_with_heartbeats(5, shards + replicas)
    talk.lose(shards[1])
    successor = talk.shard(1)
    talk.tick()
    for shard in (shards[0], successor):
        talk.snapshotted(shard, 1)
    talk.say(shards[0], "snapshot_failed", id=1, message="disk full")
    assert not talk.commits()
    assert not talk.rows("checkpoint_failed")
    for shard in (shards[0], successor):
        talk.snapshotted(shard, 2)
    assert talk.commits()[0].id == 2


def test_a_shard_that_cannot_write_costs_one_checkpoint_and_not_the_run():
    talk = every(seconds=5)
    shards, replicas = talk.all_join()
    talk.tick_with_heartbeats(5, shards + replicas)
    talk.say(shards[1], "snapshot_failed", id=1, message="No space left on device")
    assert talk.rows("checkpoint_failed") == [{"shard": 1, "reason": "No space left on device"}]
    talk.snapshotted(shards[0], 1)
    assert not talk.commits()
    talk.tick_with_heartbeats(4.9, shards + replicas)
    assert not requested(talk, shards[0])
    talk.tick_with_heartbeats(0.1, shards + replicas)
    assert requested(talk, shards[0]) == [2]


def test_without_its_final_checkpoint_a_run_fails():
    talk = every()
    shards, (alice, _) = talk.all_join()
    talk.work_off(alice)
    talk.tick()
    with pytest.raises(RunFailedError, match=r"shard 1 cannot write the final checkpoint: .*space"):
        talk.say(shards[1], "snapshot_failed", id=1, message="No space left on device")


def test_the_final_snapshot_waits_for_one_that_is_under_way():
    talk = every(seconds=5)
    shards, (alice, bob) = talk.all_join()
    talk.tick_with_heartbeats(5, [*shards, alice, bob])
    talk.work_off(alice)
    talk.tick()
    assert not requested(talk, shards[0])
    for shard in shards:
        talk.snapshotted(shard, 1)
    assert not talk.commits()[0].final
    talk.tick()
    assert requested(talk, shards[0]) == [2]
    for shard in shards:
        talk.snapshotted(shard, 2)
    assert talk.commits()[0].final


def test_a_shard_lost_during_the_final_snapshot_only_delays_it():
    talk = every()
    shards, (alice, _) = talk.all_join()
    talk.work_off(alice)
    talk.tick()
    talk.snapshotted(shards[0], 1)
    talk.lose(shards[0])
    successor = talk.shard(0)
    talk.tick()
    assert requested(talk, successor) == [2]
    for shard in (successor, shards[1]):
        talk.snapshotted(shard, 2)
    assert talk.commits()[0].final


def test_a_run_told_to_stop_takes_one_more_snapshot_and_ends_without_measuring_it():
    talk = every(seconds=HOUR)
    shards, (alice, _) = talk.all_join()
    talk.progress(alice, talk.lease(alice), 10)
    talk.out = talk.coordinator.stop()
    assert not talk.finished
    talk.tick()
    assert [requested(talk, shard) for shard in shards] == [[1], [1]]
    talk.snapshotted(shards[0], 1, (0, 1, 1, 10))
    talk.snapshotted(shards[1], 1, (0, 1, 1, 10))
    (commit,) = talk.commits()
    assert (commit.num_counted, commit.final, commit.validate) == (10, False, False)
    assert talk.finished
    talk.tick()
    assert not requested(talk, shards[0])


def test_a_run_told_to_stop_ends_when_its_last_snapshot_cannot_be_written():
    talk = every(seconds=HOUR)
    shards, _ = talk.all_join()
    talk.coordinator.stop()
    talk.tick()
    talk.say(shards[0], "snapshot_failed", id=1, message="no space left")
    assert talk.rows("checkpoint_failed")
    assert talk.finished


def test_a_run_told_to_stop_while_a_checkpoint_is_measured_does_not_wait_for_that():
    talk = every(epochs=0.1)
    shards, (alice, _) = talk.all_join()
    talk.progress(alice, talk.lease(alice), 10)
    talk.tick()
    for shard in shards:
        talk.snapshotted(shard, 1, (0, 1, 1, 10))
    assert talk.commits()[0].validate
    talk.coordinator.stop()
    talk.tick()
    assert requested(talk, shards[0]) == [2]


def test_a_run_told_to_stop_after_its_final_snapshot_ends_at_once():
    talk = every()
    shards, (alice, _) = talk.all_join()
    talk.work_off(alice)
    talk.tick()
    for shard in shards:
        talk.snapshotted(shard, 1, (0, 1, 99, 40))
    assert talk.commits()[0].final
    talk.out = talk.coordinator.stop()
    assert talk.finished


def test_the_interval_grows_until_checkpoints_cost_no_more_than_their_share():
    """A virtual clock: what each checkpoint costs is what its slower shard says."""
    talk = every(seconds=5)
    shards, replicas = talk.all_join()
    costs, taken = [0.05, 0.7, 0.7, 7.0, 0.1, 0.1], []
    rows = []
    for id, cost_s in enumerate(costs, start=1):
        while not requested(talk, shards[0]):
            talk.tick_with_heartbeats(0.5, shards + replicas)
        taken.append(talk.now)
        talk.now += cost_s
        talk.snapshotted(shards[0], id, cost_s=cost_s / 3)
        talk.snapshotted(shards[1], id, cost_s=cost_s)
        assert talk.commits()
        rows += talk.rows("checkpoint_interval")
        talk.out = []
    assert [row["interval_s"] for row in rows] == [20.0, 200.0, 5.0]  # cost / 0.035, at least 5
    pauses = [
        later - before - cost for before, later, cost in zip(taken, taken[1:], costs, strict=False)
    ]
    shares = [cost / (cost + pause) for cost, pause in zip(costs, pauses, strict=False)]
    assert max(shares) <= 0.035
    assert pauses[0] < 5.6  # a cheap one is not put off


def test_a_demanded_snapshot_does_not_wait_for_a_validation_and_asks_for_none():
    talk = every(seconds=HOUR, epochs=0.5)
    shards, replicas = talk.all_join()
    for _ in range(4):
        lease = talk.lease(replicas[0])
        talk.progress(replicas[0], lease, lease.stop)
    talk.tick()
    for shard in shards:
        talk.snapshotted(shard, 1)
    assert talk.commits()[0].validate
    talk.say(shards[1], "log_long")
    talk.tick()
    assert requested(talk, shards[0]) == [2]
    for shard in shards:
        talk.snapshotted(shard, 2)
    assert not talk.commits()[0].validate
