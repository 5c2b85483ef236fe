"""The places of a run, one for each replica and shard, and who sits there now. Pure."""

from dataclasses import dataclass, field


@dataclass
class Seat:
    """One role's place; `peer` is None while nobody sits there."""

    peer: int | None = None
    pid: int = 0
    worker: str = ""
    heard: float = 0.0  # clock when the peer last said something
    absent_since: float | None = None  # clock; None while somebody sits there
    restarts: int = 0
    pids: set[int] = field(default_factory=set)  # all that ever sat here

    def take(self, peer: int, pid: int, worker: str, now: float) -> None:
        """A process connected and sits down."""
        self.peer, self.pid, self.worker, self.heard = peer, pid, worker, now
        self.pids.add(pid)


@dataclass
class ReplicaSeat(Seat):
    """A model replica; each process that takes the seat is a new incarnation."""

    incarnation: int = 0
    welcomed: bool = False
    samples: int = 0
    quarantined: bool = False  # its gradients were no numbers, again and again


@dataclass
class ShardSeat(Seat):
    """A parameter shard; each process that takes the seat owns it under a new epoch."""

    epoch: int = 0
    address: tuple[str, int] | None = None  # None: not serving


class Seats:
    """All places of a run. They outlive a phase of it: shards keep theirs, lives count on."""

    def __init__(self, num_replicas: int, num_shards: int) -> None:
        """Nobody sits anywhere."""
        self.replicas = [ReplicaSeat() for _ in range(num_replicas)]
        self.shards = [ShardSeat() for _ in range(num_shards)]

    @property
    def shard_peers(self) -> dict[int, tuple[str, int]]:
        """Role and index of each shard that is connected, by its peer."""
        seated = enumerate(self.shards)
        return {seat.peer: ("shard", k) for k, seat in seated if seat.peer is not None}

    def next_phase(self, now: float) -> None:
        """Replicas leave; shards stay, and were heard just now."""
        self.replicas = [
            ReplicaSeat(incarnation=seat.incarnation, restarts=seat.restarts, pids=seat.pids)
            for seat in self.replicas
        ]
        for shard in self.shards:
            shard.heard, shard.absent_since = now, None
