"""The coordinator's decisions: who joins, who works on what, when it ends."""

from engine.config import DownpourConfig
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
    assert talk.rows("replica_joined") == [{"replica": 0, "incarnation": 1, "pid": 1000 + replica}]


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
            "staleness": {"0": {"0": 1}},
            "waiting_s": 0.1,
            "clipped": 0,
        }
    ]


def test_pushes_that_were_answered_after_the_last_step_are_told_of():
    talk = Conversation()
    _, (replica, _) = talk.all_join()
    staleness = {"0": {"0": 1}, "1": {"2": 1}}
    values = {"progress": (0, 0), "steps": 0, "staleness": staleness, "refused": {}}
    talk.say(replica, "progress", **values)
    assert talk.rows("pushes") == [{"replica": 0, "staleness": staleness}]


def test_refused_pushes_become_rows_even_when_nothing_else_happened():
    talk = Conversation()
    _, (replica, _) = talk.all_join()
    values = {"progress": (0, 0), "steps": 0, "staleness": {}, "refused": {"3 of 9 are NaN": 2}}
    talk.say(replica, "progress", **values)
    assert talk.rows("push_refused") == [{"replica": 0, "message": "3 of 9 are NaN", "pushes": 2}]
    assert not talk.rows("progress")


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
    assert commit.num_steps == 16  # mini-batches of 5, whatever the replicas have reported
    assert talk.tick_with_heartbeats(HOUR, shards + replicas) == []  # the validation takes long
    talk.out = talk.coordinator.measured(final=True)
    assert talk.finished
    assert all(talk.sent(peer) == [{"op": "stop"}] for peer in replicas)
    assert not any(talk.sent(peer) for peer in shards)  # they may serve another phase
    assert talk.tick_with_heartbeats(HOUR, shards + replicas) == []
