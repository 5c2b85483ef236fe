"""One replica measures a point on held-out data, and another one when it is lost. Pure."""

from collections.abc import Mapping

from engine.frames import Message
from engine.instructions import Instruction, Send
from engine.roster import Roster


class Validation:
    """One validation after another, each by the first replica that works."""

    def __init__(self, roster: Roster) -> None:
        """Start with nothing to measure."""
        self._roster = roster
        self._message: Message | None = None
        self._replica: int | None = None

    @property
    def busy(self) -> bool:
        """Whether a point is being measured, or waits for a replica."""
        return self._message is not None

    def begin(self, point: str) -> list[Instruction]:
        """Have `point` measured."""
        self._message = {"op": "validate", "point": point}
        return self.go_on()

    def go_on(self) -> list[Instruction]:
        """Ask a replica, if none is at it and one works."""
        workers = self._roster.workers
        if not self._message or self._replica is not None or not workers:
            return []
        self._replica = workers[0]
        return [Send(self._roster.peer(workers[0]), self._message)]

    def hear(self, replica: int, message: Message) -> Mapping[str, float] | None:
        """Its measures; None from a replica that was not asked."""
        if replica != self._replica:
            return None
        self._message = self._replica = None
        metrics: Mapping[str, float] = message["metrics"]
        return metrics

    def lose(self, replica: int) -> None:
        """A replica is gone."""
        if replica == self._replica:
            self._replica = None
