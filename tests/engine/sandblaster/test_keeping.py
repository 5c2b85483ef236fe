"""Keeping an iterate on disk: told to every shard, and to the successor of one that dies."""

from engine.instructions import Send
from engine.sandblaster.keeping import Keeping
from tests.engine.sandblaster.test_coordinator import (
    SHARD,
    SUCCESSOR,
    coordinator,
    hello,
    sent,
    serving,
    sum_of,
)


def kept(message: dict, **answer) -> dict:
    return {"op": "kept", "keeping": message["keeping"], **answer}


def test_it_is_done_when_every_shard_has_answered_and_an_echo_of_the_last_one_is_none():
    keeping = Keeping(2, epoch=3)
    first = keeping.begin("folder/1", ["x"])
    assert keeping.hear(1, kept(first, kept=1)) is None
    assert keeping.hear(1, kept(first, kept=1)) is None
    assert keeping.unanswered(1) == []
    assert keeping.unanswered(0) == [first]
    assert [a["kept"] for a in keeping.hear(0, kept(first, kept=0))] == [0, 1]
    assert not keeping.busy
    second = keeping.begin("folder/2", ["x"])
    assert keeping.hear(0, kept(first)) is None
    assert keeping.unanswered(0) == [second]


def test_an_evaluation_goes_on_meanwhile_and_a_successor_is_told_to_keep_again():
    made = coordinator()
    ((_, message),) = sent(made.keep("folder/1", ["x"]), "keep")
    waiting = sent(made.evaluate("x", None, None, 0.0), "work")
    made.lose(SHARD, "killed", 0.0)
    made.hear(SUCCESSOR, hello("shard", 0), 0.0)
    assert Send(SUCCESSOR, message) in made.hear(SUCCESSOR, serving(), 0.0)
    while waiting:
        peer, work = waiting.pop(0)
        told = made.hear(peer, sum_of(work, None), 0.0)
        waiting += sent(told, "work")
    assert made.answer == 1.0
    assert made.kept is None
    made.hear(SUCCESSOR, kept(message, kept={}), 0.0)
    assert [answer["kept"] for answer in made.kept] == [{}]
