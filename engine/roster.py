"""Who sits where: replicas and shards that connect, fall silent, and are replaced. Pure."""

from collections.abc import Iterator

from engine.config import ClusterConfig
from engine.frames import Message
from engine.instructions import Drop, Instruction, Record, RunFailedError, Send
from engine.seats import ReplicaSeat, Seat, Seats, ShardSeat
from engine.silence import Silence


class Roster:
    """The seats of a run, and which peer sits on which."""

    def __init__(self, cluster: ClusterConfig, seats: Seats | None = None) -> None:
        """Start with the shards on `seats`; None: nobody is connected yet."""
        seats = seats or Seats(cluster.num_replicas, cluster.num_shards)
        self._cluster = cluster
        self.silence = Silence(cluster)
        self.replicas, self.shards = seats.replicas, seats.shards
        self._places = seats.shard_peers  # peer -> role and index

    @property
    def all_shards_serve(self) -> bool:
        return all(shard.address for shard in self.shards)

    @property
    def seated(self) -> list[Seat]:
        """Every seat, shards first."""
        return [*self.shards, *self.replicas]

    @property
    def shard_peers(self) -> list[int]:
        """The connections of the shards that are there, serving or not yet."""
        return [shard.peer for shard in self.shards if shard.peer is not None]

    @property
    def workers(self) -> list[int]:
        """Indices of the replicas that work."""
        return [
            k for k, seat in enumerate(self.replicas) if seat.peer is not None and seat.welcomed
        ]

    def peer(self, replica: int) -> int:
        """The connection of a replica that works."""
        peer = self.replicas[replica].peer
        assert peer is not None
        return peer

    def place_of(self, peer: int) -> tuple[str, int] | None:
        """(role, index) of a peer; None once it has been dropped."""
        return self._places.get(peer)

    def seat(self, role: str, index: int) -> Seat:
        seats: list[ReplicaSeat] | list[ShardSeat]
        seats = self.replicas if role == "replica" else self.shards
        return seats[index]

    def sit(self, peer: int, hello: Message, now: float) -> None:
        """A peer takes a seat, which nobody else may have: a new incarnation or epoch."""
        role, index = str(hello["role"]), int(hello["index"])
        seat = self.seat(role, index)
        self._places[peer] = (role, index)
        seat.take(peer, int(hello["pid"]), str(hello["worker"]), now)
        if isinstance(seat, ReplicaSeat):
            seat.incarnation += 1
            seat.welcomed = False
        elif isinstance(seat, ShardSeat):
            seat.epoch += 1

    def leave(self, peer: int) -> None:
        """A peer is gone."""
        role, index = self._places.pop(peer)
        seat = self.seat(role, index)
        seat.peer = None
        if isinstance(seat, ShardSeat):
            seat.address = None

    def serve(self, shard: int, message: Message) -> list[Instruction]:
        """A shard says where it serves; the replicas that work have to know."""
        seat = self.shards[shard]
        seat.address = (message["host"], message["port"])
        values = {"shard": shard, "epoch": seat.epoch, "version": message["version"]}
        values |= {"restored_from": message["restored_from"], "pid": seat.pid}
        moved = {"op": "shard", "index": shard, "address": (*seat.address, seat.epoch)}
        tell = [Send(self.peer(replica), moved) for replica in self.workers]
        return [Record("shard_serving", values), *tell]

    def welcome(self) -> list[Instruction]:
        """Welcome the replicas that wait; every shard serves."""
        addresses = [(*s.address, s.epoch) for s in self.shards if s.address]
        instructions: list[Instruction] = []
        for index, seat in enumerate(self.replicas):
            if seat.peer is not None and not seat.welcomed:
                seat.welcomed = True
                welcome = {"op": "welcome", "incarnation": seat.incarnation, "shards": addresses}
                values = {"replica": index, "incarnation": seat.incarnation, "pid": seat.pid}
                instructions += [Send(seat.peer, welcome), Record("replica_joined", values)]
        return instructions

    def silent(self, now: float) -> Iterator[tuple[int, Instruction, str]]:
        """Peers that have not been heard for too long, each with what ends it and the reason."""
        for seat in self.silence.of(self.seated, now):
            assert seat.peer is not None
            yield seat.peer, Drop(seat.peer, seat.pid, seat.worker), self.silence.reason

    def check_absent(self, now: float) -> None:
        """A run needs every shard and some replica, and does not wait for them for ever.

        Raises:
            RunFailedError: after `cluster.start_timeout_s`.
        """
        for seat in self.seated:
            if seat.peer is not None:
                seat.absent_since = None
            elif seat.absent_since is None:
                seat.absent_since = now
        limit = self._cluster.start_timeout_s
        for index, shard in enumerate(self.shards):
            if shard.absent_since is not None and now - shard.absent_since > limit:
                raise RunFailedError(
                    f"shard {index} has had no process for {limit:g} s: {_hint(f'shard-{index}')}"
                )
        if all(r.absent_since is not None and now - r.absent_since > limit for r in self.replicas):
            raise RunFailedError(
                f"no replica has had a process for {limit:g} s: {_hint('replica-0')}"
            )

    def count_restart(self, role: str, index: int, reason: str) -> None:
        """A role was lost once more.

        Raises:
            RunFailedError: more often than `cluster.max_restarts`.
        """
        seat = self.seat(role, index)
        seat.restarts += 1
        if seat.restarts > self._cluster.max_restarts:
            raise RunFailedError(
                f"{role} {index} was lost {seat.restarts} times, cluster.max_restarts="
                f"{self._cluster.max_restarts}; the last time: {reason}"
            )


def _hint(resource: str) -> str:
    return (
        f"does a Dask worker offer the resource {resource!r}, one each for every role, and has it "
        "a free thread?"
    )
