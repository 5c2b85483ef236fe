"""Requests that every shard carries out in the same order, each exactly once. Pure.

A request is known by (epoch of the coordinator, sequence). A shard answers in order; when its
process dies, all that it has not answered is sent to its successor again. That is safe: a shard
drops what is older than the newest request that it carried out, and the newest may be carried out
twice with the same effect (see `engine.batch.vector`: batches are replayable).
"""

from dataclasses import dataclass, field
from typing import Any

from engine.frames import Message


@dataclass
class Request:
    """One message to all shards, and their answers as they come."""

    message: Message
    answers: dict[int, Message] = field(default_factory=dict)


class Requests:
    """The requests that some shard has not answered yet, oldest first."""

    def __init__(self, num_shards: int, epoch: int) -> None:
        """Requests of a coordinator of this `epoch`, higher than that of any before it."""
        self._num_shards = num_shards
        self._epoch = epoch
        self._sequence = 0
        self._waiting: list[list[Request]] = [[] for _ in range(num_shards)]

    def ask(self, op: str, **fields: Any) -> Request:
        """Queue a request for every shard; its message is to be sent to those that serve."""
        self._sequence += 1
        request = Request({"op": op, "request": [self._epoch, self._sequence], **fields})
        for waiting in self._waiting:
            waiting.append(request)
        return request

    def unanswered(self, shard: int) -> list[Message]:
        """What to send to a shard's successor, in order."""
        return [request.message for request in self._waiting[shard]]

    def answer(self, shard: int, message: Message) -> Request | None:
        """A shard's answer to its oldest request; returns the request once all have answered.

        An answer to something else is an echo from before the shard's loss, and ignored.
        """
        waiting = self._waiting[shard]
        if not waiting or message["request"] != waiting[0].message["request"]:
            return None
        request = waiting.pop(0)
        request.answers[shard] = message
        return request if len(request.answers) == self._num_shards else None
