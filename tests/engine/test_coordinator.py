"""The coordinator's decisions: who joins, who works on what, who is lost."""

import pytest

from engine.config import ClusterConfig, DownpourConfig
from engine.instructions import RunFailedError
from tests.engine.conversation import HOUR, Conversation


def test_a_replica_is_welcomed_only_when_every_shard_serves():
    talk = Conversation()
    replica = talk.hello("replica", 0)
    assert talk.out == []
    first = talk.shard(0)
    assert not talk.sent(replica)
    second = talk.hello("shard", 1)
    assert not talk.sent(replica)
    talk.serve(second)
    (welcome,) = talk.sent(replica)
    assert welcome["op"] == "welcome"
    assert welcome["incarnation"] == 1
    assert welcome["shards"] == [
        ("127.0.0.1", 5000 + first, 1),
        ("127.0.0.1", 5000 + second, 1),
    ]
    assert talk.rows("replica_joined") == [
        {"replica": 0, "incarnation": 1, "pid": 1000 + replica}
    ]


def test_a_replica_is_welcomed_once():
    talk = Conversation()
    talk.all_join()
    shard = talk.shard(0)  # a successor serves
    assert [r["op"] for peer in (3, 4) for r in talk.sent(peer)] == ["shard", "shard"]
    assert talk.sent(3)[0]["address"] == ("127.0.0.1", 5000 + shard, 2)


def test_each_process_that_takes_a_seat_gets_a_number_of_its_own():
    talk = Conversation()
    talk.all_join()
    for number in (2, 3, 4):
        replica = talk.hello("replica", 1)
        assert talk.sent(replica, "welcome")[0]["incarnation"] == number
    for number in (2, 3):
        shard = talk.hello("shard", 0)
        (assign,) = talk.sent(shard, "assign")
        assert assign == {"op": "assign", "epoch": number, "checkpoint": "checkpoints/000000"}
        talk.serve(shard)


def test_leases_carry_the_schedules_scale_and_say_when_all_is_done():
    config = DownpourConfig(
        minibatch_size=20, num_epochs=1, schedule={"drop_at": (0.5,), "drop_by": (10.0,)}
    )
    talk = Conversation(config)
    _, (replica, _) = talk.all_join()
    scales, dones = [], []
    for _ in range(2):
        talk.say(replica, "lease")
        (reply,) = talk.sent(replica)
        scales.append(reply["scale"])
        talk.progress(replica, reply["lease"], reply["lease"].stop)
    talk.say(replica, "lease")
    dones.append(talk.sent(replica)[0]["done"])
    assert scales == [1.0, 0.1]
    assert dones == [True]


def test_nothing_left_to_lend_is_not_yet_done():
    talk = Conversation()
    _, (alice, bob) = talk.all_join()
    while talk.lease(alice):
        pass
    talk.say(bob, "lease")
    (reply,) = talk.sent(bob)
    assert (reply["lease"], reply["done"]) == (None, False)


def test_progress_becomes_a_row_of_the_event_log():
    talk = Conversation()
    _, (alice, bob) = talk.all_join()
    talk.progress(alice, talk.lease(alice), 5)
    lease = talk.lease(bob)
    talk.progress(bob, lease, lease.start + 5)
    assert talk.rows("progress") == [
        {
            "replica": 1,
            "samples": 10,
            "replica_samples": 5,
            "loss": 2.0,
            "images_per_s": 10.0,
            "staleness": {"0": 1},
            "waiting_s": 0.1,
        }
    ]


def test_refused_pushes_become_rows_even_when_nothing_else_happened():
    talk = Conversation()
    _, (replica, _) = talk.all_join()
    talk.say(replica, "progress", progress=(0, 0), steps=0, refused={"3 of 9 are NaN": 2})
    assert talk.rows("push_refused") == [{"replica": 0, "message": "3 of 9 are NaN", "pushes": 2}]
    assert not talk.rows("progress")


def test_a_lost_replica_is_fenced_everywhere_and_what_it_had_applied_counts():
    talk = Conversation()
    shards, (alice, bob) = talk.all_join()
    first, second = talk.lease(alice), talk.lease(alice)
    talk.lose(alice)
    fence = {"op": "fence", "replica": 0, "incarnation": 1}
    assert [talk.sent(shard) for shard in shards] == [[fence], [fence]]
    (row,) = talk.rows("replica_lost")
    assert row == {
        "replica": 0,
        "incarnation": 1,
        "pid": 1000 + alice,
        "reason": "connection closed",
    }
    talk.fenced(shards[0], 0, 1, (first.id, first.start + 5))
    assert not talk.rows("replica_settled")
    assert talk.ledger.num_leased == 20  # nobody else reads them before every shard has answered
    talk.fenced(shards[1], 0, 1, (second.id, second.start + 5))
    # A push that reached any shard counts.
    assert talk.rows("replica_settled") == [
        {"replica": 0, "incarnation": 1, "samples_returned": 5}
    ]
    assert talk.ledger.num_counted == 15
    assert talk.lease(bob)[1:] == (0, second.unit, second.start + 5, second.stop)


def test_a_replica_that_had_applied_nothing_returns_all():
    talk = Conversation()
    shards, (alice, _) = talk.all_join()
    talk.lease(alice)
    talk.lose(alice)
    for shard in shards:
        talk.fenced(shard, 0, 1, None)
    assert talk.rows("replica_settled")[0]["samples_returned"] == 10
    assert talk.ledger.num_leased == 0


def test_the_reports_of_a_lost_replica_no_longer_count():
    talk = Conversation()
    _, (alice, _) = talk.all_join()
    lease = talk.lease(alice)
    talk.lose(alice)
    assert talk.progress(alice, lease, 10) == []
    assert talk.say(alice, "lease") == []
    assert talk.ledger.num_counted == 0


def test_a_fence_waits_for_a_shard_that_is_not_there():
    talk = Conversation()
    shards, (alice, _) = talk.all_join()
    lease = talk.lease(alice)
    talk.lose(shards[1])
    talk.lose(alice)
    talk.fenced(shards[0], 0, 1, None)
    assert not talk.rows("replica_settled")
    successor = talk.shard(1)
    assert talk.sent(successor, "fence") == [{"op": "fence", "replica": 0, "incarnation": 1}]
    talk.fenced(successor, 0, 1, (lease.id, 5))
    assert talk.rows("replica_settled")[0]["samples_returned"] == 5


def test_a_shard_that_dies_before_it_answers_is_asked_again():
    talk = Conversation()
    shards, (alice, _) = talk.all_join()
    talk.lease(alice)
    talk.lose(alice)
    talk.fenced(shards[0], 0, 1, None)
    talk.lose(shards[1])
    assert talk.sent(talk.shard(1), "fence")


def test_a_replica_in_a_hurry_replaces_its_own_old_life():
    talk = Conversation()
    shards, (alice, _) = talk.all_join()
    talk.lease(alice)
    again = talk.hello("replica", 0)
    assert talk.rows("replica_lost")[0]["reason"] == "a successor connected"
    assert talk.sent(shards[0], "fence")[0]["incarnation"] == 1
    assert talk.sent(again, "welcome")[0]["incarnation"] == 2
    assert talk.lose(alice) == []  # its old connection ends too: not a loss of the new one


@pytest.mark.parametrize("role", ["replica", "shard"])
def test_a_silent_process_is_ended_once_the_timeout_has_passed(role):
    talk = Conversation()
    shards, replicas = talk.all_join()
    everybody = shards + replicas
    victim = (shards if role == "shard" else replicas)[1]
    others = [peer for peer in everybody if peer != victim]
    talk.tick_with_heartbeats(6.0, everybody)
    talk.tick_with_heartbeats(10.0, others)
    assert talk.drops() == []
    talk.tick_with_heartbeats(0.1, others)
    (drop,) = talk.drops()
    assert (drop.peer, drop.pid, drop.worker) == (victim, 1000 + victim, f"tcp://{victim}")
    assert talk.rows(f"{role}_lost")[0]["reason"] == "silent for 10 s"
    talk.tick_with_heartbeats(20.0, others)
    assert talk.drops() == []


def test_replicas_are_not_given_leases_while_a_shard_is_missing_but_may_go_on():
    talk = Conversation()
    shards, (alice, _) = talk.all_join()
    talk.lose(shards[0])
    assert talk.rows("shard_lost")[0] == {
        "shard": 0,
        "epoch": 1,
        "pid": 1000 + shards[0],
        "reason": "connection closed",
    }
    assert talk.lease(alice)
    late = talk.hello("replica", 1)
    assert not talk.sent(late, "welcome")
    talk.shard(0)
    assert talk.sent(late, "welcome")


def test_a_warm_start_lets_one_replica_work_alone_until_its_steps_are_done():
    config = DownpourConfig(minibatch_size=5, num_epochs=1, warm_start_steps=3)
    talk = Conversation(config)
    _, (alice, bob) = talk.all_join()
    lease = talk.lease(bob)  # whoever asks first
    assert talk.lease(alice) is None
    talk.progress(bob, lease, 5, steps=2)
    assert talk.lease(alice) is None
    assert talk.lease(bob)
    talk.progress(bob, lease, 10, steps=1)
    assert talk.lease(alice)


def test_when_the_replica_of_the_warm_start_dies_another_one_takes_its_place():
    config = DownpourConfig(minibatch_size=5, num_epochs=1, warm_start_steps=3)
    talk = Conversation(config)
    _, (alice, bob) = talk.all_join()
    assert talk.lease(alice)
    assert talk.lease(bob) is None
    talk.lose(alice)
    assert talk.lease(bob)
    again = talk.hello("replica", 0)
    assert talk.lease(again) is None


@pytest.mark.parametrize("role", ["replica", "shard"])
def test_a_role_that_is_lost_too_often_ends_the_run_with_its_last_reason(role):
    talk = Conversation(cluster=ClusterConfig(max_restarts=2))
    shards, replicas = talk.all_join()
    peer = (shards if role == "shard" else replicas)[1]
    for _ in range(2):
        talk.lose(peer)
        peer = talk.shard(1) if role == "shard" else talk.hello("replica", 1)
    with pytest.raises(RunFailedError, match=rf"{role} 1 was lost 3 times, .*=2; .*: exit code 9"):
        talk.lose(peer, "exit code 9")


def test_a_replica_that_leaves_when_all_is_done_is_not_lost():
    talk = Conversation()
    _, (alice, bob) = talk.all_join()
    talk.work_off(alice)
    for peer in (alice, bob):
        assert talk.lose(peer) == []


def test_a_process_that_leaves_before_its_welcome_costs_no_restart():
    talk = Conversation(cluster=ClusterConfig(max_restarts=0))
    for _ in range(5):
        assert talk.lose(talk.hello("replica", 0)) == []


def test_the_run_ends_with_the_final_validation_and_tells_everybody():
    talk = Conversation()
    shards, replicas = talk.all_join()
    talk.work_off(replicas[0])
    assert talk.ledger.complete
    talk.tick()
    (request,) = talk.sent(shards[0])
    for shard in shards:
        talk.snapshotted(shard, request["id"])
    (commit,) = talk.commits()
    assert commit.final
    assert commit.validate
    assert commit.num_counted == 80
    assert commit.num_steps == 8
    assert talk.tick_with_heartbeats(HOUR, shards + replicas) == []  # the validation takes long
    talk.out = talk.coordinator.measured(final=True)
    assert talk.finished
    assert all(talk.sent(peer) == [{"op": "stop"}] for peer in shards + replicas)
    assert talk.tick_with_heartbeats(HOUR, shards + replicas) == []


def test_after_the_end_a_lost_shard_is_no_failure():
    talk = Conversation(cluster=ClusterConfig(max_restarts=0))
    shards, replicas = talk.all_join()
    talk.work_off(replicas[0])
    talk.coordinator.measured(final=True)
    assert talk.lose(shards[0]) == []


def test_what_a_lost_replica_had_reported_counts_even_if_the_shards_know_nothing_of_it():
    talk = Conversation()
    shards, (alice, _) = talk.all_join()
    lease = talk.lease(alice)
    talk.progress(alice, lease, 5)  # every push of it was refused: its samples are used up
    talk.lose(alice)
    for shard in shards:
        talk.fenced(shard, 0, 1, None)
    assert talk.rows("replica_settled")[0]["samples_returned"] == 5
    assert talk.ledger.num_counted == 5
