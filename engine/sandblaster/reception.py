"""What is said to replicas and shards that connect, and when. Pure.

shard:   hello → assign → serving
replica: hello → welcome, once every shard serves
"""

from engine.frames import Message
from engine.instructions import Instruction, Record, RunFailedError, Send
from engine.run_spec import segment_name
from engine.sandblaster.roster import Roster


class Reception:
    """Greets who takes a seat, until the phase is over."""

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
        seat.address = (message["host"], message["port"])
        values = {"shard": shard, "epoch": seat.epoch, "version": message["version"]}
        values |= {"restored_from": message["restored_from"], "pid": seat.pid}
        moved = {"op": "shard", "index": shard, "address": (*seat.address, seat.epoch)}
        told = [Send(self._roster.peer(replica), moved) for replica in self._roster.workers]
        return [Record("shard_serving", values), *told]

    def welcome(self) -> list[Instruction]:
        """Welcome the replicas that wait; every shard serves."""
        addresses = [(*s.address, s.epoch) for s in self._roster.shards if s.address]
        instructions: list[Instruction] = []
        for index, seat in enumerate(self._roster.replicas):
            if seat.peer is not None and not seat.welcomed:
                seat.welcomed = True
                welcome = {"op": "welcome", "incarnation": seat.incarnation, "shards": addresses}
                values = {"replica": index, "incarnation": seat.incarnation, "pid": seat.pid}
                instructions += [Send(seat.peer, welcome), Record("replica_joined", values)]
        return instructions
