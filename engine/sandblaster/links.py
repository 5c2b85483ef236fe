"""A replica's connections to the shards: it fetches named vectors and leaves its sums with them."""

from collections.abc import Sequence
from typing import Any

from engine.frames import Message
from engine.link import Directory, ShardLink
from engine.segment import Segment


class VectorLinks:
    """All shards together: whole vectors in, whole gradient slots out."""

    def __init__(
        self, directory: Directory, segment: Segment, hello: dict[str, Any], slices: Sequence[slice]
    ) -> None:
        hello = hello | {"op": "hello", "segment": str(segment.path), "nonce": segment.nonce}
        self._segment = segment
        self._links = [ShardLink(k, directory, hello) for k in range(len(slices))]
        self._slices = slices

    def fetch(self, vector: str, buffer: int) -> None:
        """Fill parameter buffer `buffer` with a named vector."""
        message: Message = {"op": "fetch", "buffer": buffer, "vector": vector}
        target = self._segment.parameters[buffer]
        nothing = target[:0]
        for link in self._links:
            link.send(message, nothing)
        for link, part in zip(self._links, self._slices, strict=True):
            link.receive(message, nothing, target[part])

    def stage(self, name: str, slot: int) -> None:
        """Send gradient slot `slot` to the shards that cannot map it, under `name`."""
        grad = self._segment.gradients[slot]
        message: Message = {"op": "stage", "slot": slot, "name": name}
        far = [pair for pair in zip(self._links, self._slices, strict=True) if not pair[0].shared]
        for link, part in far:
            link.send(message, grad[part])
        for link, part in far:
            link.receive(message, grad[part], None)

    def close(self) -> None:
        """Drop all connections."""
        for link in self._links:
            link.close()
