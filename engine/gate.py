"""Holds back pushes for a moment, so that the snapshots of all shards contain the same ones."""

import threading
from collections.abc import Callable, Collection, Mapping

from engine.ledger import Holder

#: A push is held no longer than this: then a shard or the coordinator was lost, and the snapshot.
HOLD_S = 2.0
#: A snapshot waits no longer than this for a push that has reached another shard already. What
#: does not come then will never come: its replica died between the two.
MISSING_S = 1.0
#: How often a push that is held for want of room looks again.
_LOOK_S = 0.1


class Gate:
    """While it is closed, only pushes up to a limit for each life of a replica pass.

    1. The coordinator asks for a snapshot. Each shard closes its gate at the pushes that it has
       handled, and tells which those are.
    2. The coordinator answers with the furthest of each life over all shards: the cut. The gates
       move there.
    3. A shard that has handled everything up to the cut copies its vectors and opens its gate.

    Every method is to be called with the shard's lock held.
    """

    def __init__(
        self,
        lock: threading.Lock,
        handled: Mapping[Holder, int],
        has_room: Callable[[], bool] | None = None,
        ended: Collection[Holder] = (),
    ) -> None:
        """An open gate.

        Args:
            handled: the highest sequence number of each life so far.
            has_room: False while new pushes have to wait for room; None: there always is some.
            ended: the lives that are over, of which nothing more needs to be waited for.
        """
        self._has_room = has_room or (lambda: True)
        self._changed = threading.Condition(lock)
        self._handled = dict(handled)
        self._ended = set(ended)
        self._limits: dict[Holder, int] | None = None  # None: open

    def pass_through(self, holder: Holder, sequence: int) -> None:
        """Wait until a push may be handled; a snapshot that takes too long is given up.

        One that belongs into a snapshot needs no room: the snapshot is what makes some.
        """
        while True:
            if self._limits is not None and not self._changed.wait_for(
                lambda: self._limits is None or sequence <= self._limits.get(holder, 0), HOLD_S
            ):
                self.open()
            if self._limits is not None or self._has_room():
                return
            self._changed.wait(_LOOK_S)

    def handled(self, holder: Holder, sequence: int) -> None:
        """A push was applied or refused; late ones of a life that is over do not matter."""
        if holder in self._ended:
            return
        self._handled[holder] = max(sequence, self._handled.get(holder, 0))
        if self._limits is not None:
            self._changed.notify_all()

    def end(self, holder: Holder) -> None:
        """This life is over: nothing more of it needs to be waited for."""
        self._handled.pop(holder, None)
        self._ended.add(holder)
        self._changed.notify_all()

    def close(self) -> dict[Holder, int]:
        """Let nothing new pass; return the highest sequence number handled of each life."""
        self._limits = dict(self._handled)
        return self._limits

    def wait_for_cut(self, cut: Mapping[Holder, int]) -> bool:
        """Let everything up to `cut` pass and wait for it; False if the gate has been opened."""
        if self._limits is None:
            return False
        self._limits = dict(cut)
        self._changed.notify_all()
        self._changed.wait_for(lambda: self._limits is None or self._reached(cut), MISSING_S)
        return self._limits is not None

    def open(self) -> None:
        """Let everything pass."""
        self._limits = None
        self._changed.notify_all()

    def _reached(self, cut: Mapping[Holder, int]) -> bool:
        return all(
            holder in self._ended or self._handled.get(holder, 0) >= sequence
            for holder, sequence in cut.items()
        )
