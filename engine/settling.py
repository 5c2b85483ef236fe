"""Lives that were lost: every shard refuses them, and tells how far their pushes reached. Pure."""

from engine.frames import Message
from engine.ledger import Holder, Progress


class Settling:
    """The lives whose end has not been settled with all shards yet."""

    def __init__(self, num_shards: int) -> None:
        self._num_shards = num_shards
        self._answers: dict[Holder, dict[int, Progress | None]] = {}

    def begin(self, holder: Holder) -> Message:
        """A life was lost; what to tell every shard."""
        self._answers[holder] = {}
        return _fence(holder)

    def requests(self) -> list[Message]:
        """What a shard that has just come has to be told."""
        return [_fence(holder) for holder in self._answers]

    def answer(self, shard: int, message: Message) -> tuple[Holder, Progress | None] | None:
        """A shard refuses a life from now on.

        Returns:
            the life and how far its pushes reached, None if nowhere, once all shards have told. A
            push that reached any of them counts: its samples are not read again.
        """
        holder = (message["replica"], message["incarnation"])
        if holder not in self._answers:  # it was settled before
            return None
        answers = self._answers[holder]
        progress = message["progress"]
        answers[shard] = Progress(*progress) if progress else None
        if len(answers) < self._num_shards:
            return None
        del self._answers[holder]
        return holder, max((p for p in answers.values() if p), default=None)


def _fence(holder: Holder) -> Message:
    replica, incarnation = holder
    return {"op": "fence", "replica": replica, "incarnation": incarnation}
