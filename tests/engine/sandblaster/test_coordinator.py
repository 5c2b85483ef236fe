"""The coordinator's answers to single events; whole runs are in test_inprocess."""

import pytest

from engine.batch.vector import dot
from engine.config import ClusterConfig
from engine.instructions import Drop, Record, RunFailedError, Send
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.coordinator import Coordinator
from engine.sandblaster.portions import cut_data

CLUSTER = ClusterConfig(num_replicas=2, num_shards=1, max_restarts=1)
SHARD, FIRST, SECOND, SUCCESSOR = 1, 2, 3, 4


def hello(role: str, index: int) -> dict:
    return {"op": "hello", "role": role, "index": index, "pid": 7, "worker": ""}


def serving(restored_from: str = "memory") -> dict:
    serving = {"op": "serving", "host": "here", "port": 1, "version": 0}
    return serving | {"restored_from": restored_from}


def coordinator(**changed) -> Coordinator:
    """One with its shard and both replicas."""
    config = SandblasterConfig(minibatch_size=1, max_bundle=1, **changed)
    made = Coordinator(cut_data([4], 1), config, CLUSTER, checkpoint="", epoch=1)
    made.hear(SHARD, hello("shard", 0), 0.0)
    made.hear(SHARD, serving("checkpoint"), 0.0)
    made.hear(FIRST, hello("replica", 0), 0.0)
    made.hear(SECOND, hello("replica", 1), 0.0)
    return made


def sent(instructions: list, op: str) -> list[tuple[int, dict]]:
    sends = [i for i in instructions if isinstance(i, Send)]
    return [(i.peer, i.message) for i in sends if i.message["op"] == op]


def sum_of(work: dict, slot: int | None = 0) -> dict:
    fields = {"work": work["work"], "evaluation": work["evaluation"], "slot": slot}
    times = {"took_s": 1.0, "computing_s": 1.0, "waiting_s": 0.0}
    return {"op": "sum", "losses": [1.0]} | times | fields


def test_a_request_goes_to_the_successor_of_a_shard_that_did_not_answer():
    made = coordinator()
    ((_, request),) = sent(made.run([dot("x", "x")]), "commands")
    made.lose(SHARD, "killed", 1.0)
    made.hear(SUCCESSOR, hello("shard", 0), 1.0)
    again = made.hear(SUCCESSOR, serving(), 1.0)
    assert sent(again, "commands") == [(SUCCESSOR, request)]
    moved = {"op": "shard", "index": 0, "address": ("here", 1, 2)}
    assert sent(again, "shard") == [(FIRST, moved), (SECOND, moved)]
    assert made.answer is None
    answered = {"op": "answered", "request": request["request"], "scalars": [4.0]}
    made.hear(SUCCESSOR, answered, 1.0)
    assert made.answer == (4.0,)


def test_a_shard_that_lost_its_vectors_ends_the_run_which_can_be_started_again():
    made = coordinator()
    made.lose(SHARD, "killed", 1.0)
    made.hear(SUCCESSOR, hello("shard", 0), 1.0)
    with pytest.raises(RunFailedError, match=r"shard 0 lost its memory.*start the run again"):
        made.hear(SUCCESSOR, serving("checkpoint"), 1.0)


def test_a_refused_sum_s_slot_is_free_at_once_and_an_accepted_one_s_once_it_is_added():
    made = coordinator()
    works = dict(sent(made.evaluate("x", "g", None, 0.0), "work"))
    accepted = made.hear(FIRST, sum_of(works[FIRST]), 0.0)
    assert sent(accepted, "released") == []
    stale = sum_of(works[SECOND], slot=1) | {"evaluation": 0}
    assert sent(made.hear(SECOND, stale, 0.0), "released") == [
        (SECOND, {"op": "released", "slot": 1})
    ]
    ((_, adding),) = sent(accepted, "commands")
    added = {"op": "answered", "request": adding["request"], "scalars": []}
    done = made.hear(SHARD, added, 0.0)
    assert sent(done, "released") == [(FIRST, {"op": "released", "slot": 0})]


def test_what_a_lost_replica_had_not_sent_is_given_to_the_other():
    made = coordinator()
    works = sent(made.evaluate("x", None, None, 0.0), "work")
    assert [peer for peer, _ in works] == [FIRST, SECOND, FIRST, SECOND]
    lost = made.lose(FIRST, "killed", 0.0)
    settled = {"replica": 0, "incarnation": 1, "samples_returned": 2}
    assert Record("replica_settled", settled) in lost
    waiting = [work for peer, work in works + sent(lost, "work") if peer == SECOND]
    given = []
    while waiting:
        work = waiting.pop(0)
        given.append(work["portions"])
        waiting += [more for _, more in sent(made.hear(SECOND, sum_of(work, None), 0.0), "work")]
    assert made.answer == 1.0
    assert sorted(p for portions in given for p in portions) == [(0, k, k + 1) for k in range(4)]


def test_a_replica_that_falls_silent_is_dropped_and_may_be_lost_only_so_often():
    made = coordinator()
    for peer in (SHARD, SECOND):
        made.hear(peer, {"op": "heartbeat"}, 100.0)
    dropped = made.tick(101.0)
    assert [i.peer for i in dropped if isinstance(i, Drop)] == [FIRST]
    made.hear(SUCCESSOR, hello("replica", 0), 101.0)
    with pytest.raises(RunFailedError, match="replica 0 was lost 2 times"):
        made.lose(SUCCESSOR, "killed", 102.0)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ([SHARD], r"shard 0 has had no process for 60 s: .* resource .shard-0"),
        ([FIRST, SECOND], r"no replica has had a process for 60 s: .* resource .replica-0"),
    ],
)
def test_a_role_that_nobody_takes_ends_the_run(lost, message):
    made = coordinator()
    for peer in lost:
        made.lose(peer, "killed", 5.0)

    def pass_to(now: float) -> None:
        for peer in {SHARD, FIRST, SECOND} - set(lost):
            made.hear(peer, {"op": "heartbeat"}, now)
        made.tick(now)

    pass_to(5.0)
    pass_to(64.0)
    with pytest.raises(RunFailedError, match=message):
        pass_to(66.0)


def test_one_replica_of_two_is_enough():
    made = coordinator()
    made.lose(FIRST, "killed", 5.0)
    for now in (5.0, 500.0):
        for peer in (SHARD, SECOND):
            made.hear(peer, {"op": "heartbeat"}, now)
        assert made.tick(now) == []


def test_a_point_is_validated_by_another_replica_when_the_first_is_lost():
    made = coordinator()
    ((peer, _),) = sent(made.validate("x"), "validate")
    assert peer == FIRST
    again = sent(made.lose(FIRST, "killed", 0.0), "validate")
    assert [peer for peer, _ in again] == [SECOND]
    made.hear(SECOND, {"op": "measured", "metrics": {"error": 0.5}}, 0.0)
    assert made.answer == {"error": 0.5}


def test_a_replica_that_connects_once_the_phase_is_over_is_given_nothing():
    made = coordinator()
    assert [peer for peer, _ in sent(made.stop(), "stop")] == [FIRST, SECOND]
    made.lose(FIRST, "killed", 0.0)
    assert made.hear(SUCCESSOR, hello("replica", 0), 0.0) == []


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match=r"a batch of samples \(4, 9\) is empty"):
        coordinator().evaluate("x", "g", (4, 9), 0.0)
