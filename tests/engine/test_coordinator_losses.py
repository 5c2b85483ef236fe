"""The coordinator's decisions when somebody is lost."""

import pytest

from engine.config import ClusterConfig
from engine.instructions import RunFailedError
from engine.losses import MAX_FRUITLESS
from tests.engine.conversation import Conversation


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
    assert talk.rows("replica_settled") == [{"replica": 0, "incarnation": 1, "samples_returned": 5}]
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


@pytest.mark.parametrize("role", ["replica", "shard"])
def test_a_role_that_is_lost_too_often_ends_the_run_with_its_last_reason(role):
    talk = Conversation(cluster=ClusterConfig(max_restarts=2))
    shards, replicas = talk.all_join()
    peer = (shards if role == "shard" else replicas)[1]
    for _ in range(2):
        talk.lose(peer)
        peer = talk.shard(1) if role == "shard" else talk.hello("replica", 1)
    talk.lose(peer, "exit code 9")
    with pytest.raises(RunFailedError, match=rf"{role} 1 was lost 3 times, .*=2; .*: exit code 9"):
        talk.give_up()


def test_a_replica_that_leaves_when_all_is_done_is_not_lost():
    talk = Conversation()
    _, (alice, bob) = talk.all_join()
    talk.work_off(alice)
    for peer in (alice, bob):
        assert talk.lose(peer) == []


def test_a_process_that_leaves_before_its_welcome_costs_a_restart():
    talk = Conversation(cluster=ClusterConfig(max_restarts=1))
    talk.lose(talk.hello("replica", 0))
    assert talk.rows("replica_lost")[0]["incarnation"] == 1
    talk.lose(talk.hello("replica", 0))
    with pytest.raises(RunFailedError, match="replica 0 was lost 2 times"):
        talk.give_up()


@pytest.mark.parametrize("role", ["replica", "shard"])
def test_a_role_that_dies_again_and_again_before_it_does_anything_ends_the_run(role):
    talk = Conversation(cluster=ClusterConfig(max_restarts=99))
    for _ in range(MAX_FRUITLESS + 1):
        talk.tick()
        talk.lose(talk.hello(role, 1))
    with pytest.raises(RunFailedError, match=rf"{role} 1 was lost 4 times in a row before"):
        talk.give_up()


@pytest.mark.parametrize("role", ["replica", "shard"])
def test_a_role_whose_processes_die_before_they_say_hello_ends_the_run(role):
    talk = Conversation(cluster=ClusterConfig(max_restarts=99))
    talk.all_join()
    for pid in range(1, MAX_FRUITLESS + 2):
        talk.tick()
        talk.ended(role, 1, pid, 1)
    match = rf"{role} 1 was lost 4 times in a row .*\n.*process 4 ended with exit code 1"
    with pytest.raises(RunFailedError, match=match):
        talk.tick()


def test_the_end_of_a_process_that_was_missed_already_is_told_and_not_counted_again():
    talk = Conversation(cluster=ClusterConfig(max_restarts=1))
    _, (alice, _) = talk.all_join()
    talk.lose(alice)
    talk.ended("replica", 0, 1000 + alice, -9)
    assert talk.rows("process_ended") == [
        {
            "role": "replica",
            "index": 0,
            "pid": 1000 + alice,
            "code": -9,
            "how": "was killed by signal 9 (SIGKILL)",
        }
    ]
    talk.hello("replica", 0)
    for _ in range(5):
        talk.tick()


def test_processes_that_end_when_all_is_done_are_not_missed():
    talk = Conversation(cluster=ClusterConfig(max_restarts=0))
    _, (alice, _) = talk.all_join()
    talk.work_off(alice)
    talk.ended("replica", 1, 77, 0)
    talk.tick()


def test_a_replica_that_takes_a_lease_in_between_is_not_hopeless():
    talk = Conversation(cluster=ClusterConfig(max_restarts=99))
    for _ in range(3 * MAX_FRUITLESS):
        _, (alice, bob) = talk.all_join()
        talk.lease(alice)
        talk.lose(alice)
        talk.lease(bob)
        talk.lose(bob)


def test_a_quarantined_replica_is_not_missed_and_its_samples_go_to_the_others():
    talk = Conversation(cluster=ClusterConfig(max_restarts=0))
    shards, (alice, bob) = talk.all_join()
    lease = talk.lease(alice)
    talk.say(alice, "quarantine", reason="10 pushes in a row were not finite")
    (row,) = talk.rows("replica_quarantined")
    assert row["replica"] == 0
    assert "not finite" in row["reason"]
    talk.lose(alice)
    for shard in shards:
        talk.fenced(shard, 0, 1, None)
    assert talk.lease(bob)[1:] == lease[1:]


def test_when_every_replica_is_quarantined_the_run_fails():
    talk = Conversation()
    _, (alice, bob) = talk.all_join()
    talk.say(alice, "quarantine", reason="NaN")
    with pytest.raises(RunFailedError, match=r"every replica .* last: NaN of bob"):
        talk.say(bob, "quarantine", reason="NaN of bob")


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


def test_a_shard_that_does_not_come_back_is_not_waited_for_for_ever():
    talk = Conversation(cluster=ClusterConfig(start_timeout_s=60))
    shards, replicas = talk.all_join()
    talk.lose(shards[1])
    talk.tick()
    talk.tick_with_heartbeats(60, [shards[0], *replicas])
    with pytest.raises(
        RunFailedError, match=r"shard 1 has had no process for 60 s: .* resource .shard-1"
    ):
        talk.tick_with_heartbeats(1, [shards[0], *replicas])


def test_one_missing_replica_is_done_without_but_not_all():
    talk = Conversation(cluster=ClusterConfig(start_timeout_s=60))
    shards, (alice, bob) = talk.all_join()
    talk.lose(alice)
    talk.tick()
    for _ in range(9):
        talk.tick_with_heartbeats(10, [*shards, bob])
    talk.lose(bob)
    talk.tick()
    with pytest.raises(
        RunFailedError, match=r"no replica has had a process for 60 s: .* resource .replica-0"
    ):
        talk.tick_with_heartbeats(61, shards)
