"""Requests to shards: in order, each answered once by each."""

from engine.sandblaster.requests import Requests


def answer(message: dict) -> dict:
    return {"op": "answered", "request": message["request"]}


def test_a_request_is_complete_when_every_shard_has_answered():
    requests = Requests(num_shards=2, epoch=3)
    request = requests.ask("commands", batch=[])
    assert request.message["request"] == [3, 1]
    assert requests.answer(1, answer(request.message)) is None
    assert requests.answer(0, answer(request.message)) is request


def test_what_a_lost_shard_has_not_answered_is_known_in_order():
    requests = Requests(num_shards=2, epoch=1)
    first, second = requests.ask("commands"), requests.ask("restore")
    requests.answer(0, answer(first.message))
    assert requests.unanswered(0) == [second.message]
    assert requests.unanswered(1) == [first.message, second.message]


def test_an_answer_that_comes_twice_counts_once():
    requests = Requests(num_shards=1, epoch=1)
    first, second = requests.ask("commands"), requests.ask("commands")
    assert requests.answer(0, answer(first.message)) is first
    assert requests.answer(0, answer(first.message)) is None
    assert requests.answer(0, answer(second.message)) is second
    assert requests.answer(0, answer(second.message)) is None
