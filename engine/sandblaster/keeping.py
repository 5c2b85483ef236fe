"""Keeping an iterate on disk while the next one is computed: what each shard still has to write.

Beside the requests, which every shard carries out in order: nobody waits for the disk. What is
kept are vectors that nothing overwrites before the next keeping begins (`engine.batch.program`),
so a shard's successor is simply told to keep them again. Pure.
"""

from collections.abc import Sequence

from engine.frames import Message


class Keeping:
    """One keeping after another."""

    def __init__(self, num_shards: int, epoch: int) -> None:
        """Of a coordinator of this `epoch`, with nothing to keep."""
        self._num_shards = num_shards
        self._epoch = epoch
        self._number = 0
        self._message: Message | None = None
        self._answers: dict[int, Message] = {}

    @property
    def busy(self) -> bool:
        """Whether some shard has not written its part."""
        return self._message is not None

    def begin(self, folder: str, names: Sequence[str]) -> Message:
        """What to tell every shard: to write vectors `names` to `folder`."""
        assert not self.busy, "one at a time"
        self._number += 1
        self._answers = {}
        self._message = {"op": "keep", "keeping": [self._epoch, self._number]}
        self._message |= {"folder": folder, "names": list(names)}
        return self._message

    def unanswered(self, shard: int) -> list[Message]:
        """What to tell a shard's successor."""
        return [self._message] if self._message and shard not in self._answers else []

    def hear(self, shard: int, message: Message) -> list[Message] | None:
        """A shard has written, or could not; every shard's answer once all have."""
        if self._message is None or message["keeping"] != self._message["keeping"]:
            return None
        self._answers[shard] = message
        if len(self._answers) < self._num_shards:
            return None
        self._message = None
        return [self._answers[k] for k in range(self._num_shards)]
