"""What a shard that connects is told, and what it may not have lost. Pure."""

from engine.frames import Message
from engine.instructions import Instruction, RunFailedError, Send
from engine.roster import Roster
from engine.run_spec import segment_name


class Reception:
    """Greets the shards that take a seat: hello → assign → serving."""

    def __init__(self, roster: Roster, checkpoint: str) -> None:
        """`checkpoint` is what shards restore when their memory is new."""
        self._roster = roster
        self._checkpoint = checkpoint

    @property
    def segments(self) -> frozenset[str]:
        """Names of the memory files of the replicas' present lives."""
        seats = enumerate(self._roster.replicas)
        return frozenset(segment_name(index, seat.incarnation) for index, seat in seats)

    def assign(self, shard: int) -> list[Instruction]:
        """Tell a shard that has connected what it is."""
        seat = self._roster.shards[shard]
        assert seat.peer is not None
        message = {"op": "assign", "epoch": seat.epoch, "checkpoint": self._checkpoint}
        return [Send(seat.peer, message)]

    def serving(self, shard: int, message: Message) -> list[Instruction]:
        """A shard serves; the replicas that work are told where.

        Raises:
            RunFailedError: it has other vectors than the shard before it.
        """
        seat = self._roster.shards[shard]
        if seat.epoch > 1 and message["restored_from"] == "checkpoint":
            raise RunFailedError(
                f"shard {shard} lost its memory, and its vectors with it; start the run again: "
                "it goes on from its last record"
            )
        return self._roster.serve(shard, message)
