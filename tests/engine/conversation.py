"""A coordinator without sockets: replicas and shards that say what the real ones say."""

import itertools
import math
from typing import Any

from engine.config import ClusterConfig, DownpourConfig
from engine.coordinator import Coordinator
from engine.instructions import Commit, Drop, Finish, Instruction, Record, Send
from engine.ledger import Lease, Ledger, Progress, Range
from engine.losses import TELLING_S
from engine.snapshots import Snapshots
from engine.warm_start import WarmStart

UNIT_SIZES = (40, 40)
HOUR = 3600.0


class Conversation:
    """Sends messages in the name of peers and keeps the last instructions."""

    def __init__(
        self,
        config: DownpourConfig | None = None,
        cluster: ClusterConfig | None = None,
        counted: tuple[Range, ...] = (),
    ) -> None:
        self.config = config or DownpourConfig(
            minibatch_size=5, num_epochs=1, checkpoint_every_s=HOUR, validate_every_epochs=99
        )
        self.cluster = cluster or ClusterConfig(heartbeat_interval_s=1, heartbeat_timeout_s=10)
        self.now = 0.0
        self.ledger = Ledger(
            UNIT_SIZES,
            self.config.num_epochs,
            lease_size=2 * self.config.minibatch_size,
            counted=counted,
        )
        snapshots = Snapshots(
            self.ledger,
            self.config,
            num_shards=self.cluster.num_shards,
            shards_of=[range(self.cluster.num_shards)] * self.cluster.num_replicas,
            epoch_size=sum(UNIT_SIZES),
            next_id=1,
            now=self.now,
        )
        self.coordinator = Coordinator(
            self.ledger,
            snapshots,
            self.config,
            self.cluster,
            checkpoint="checkpoints/000000",
            num_steps=0,
            warm_start=WarmStart(self.config.warm_start),
        )
        self._peers = itertools.count(1)
        self.out: list[Instruction] = []

    def say(self, peer: int, op: str, **fields: Any) -> list[Instruction]:
        self.out = self.coordinator.hear(peer, {"op": op, **fields}, self.now)
        return self.out

    def hello(self, role: str, index: int) -> int:
        """A new process takes the seat; returns its peer number. Its pid is 1000 more."""
        peer = next(self._peers)
        self.say(peer, "hello", role=role, index=index, pid=1000 + peer, worker=f"tcp://{peer}")
        return peer

    def shard(self, index: int) -> int:
        """A shard that has connected and serves."""
        peer = self.hello("shard", index)
        self.serve(peer)
        return peer

    def serve(self, peer: int) -> list[Instruction]:
        return self.say(
            peer, "serving", host="127.0.0.1", port=5000 + peer, version=0, restored_from="memory"
        )

    def all_join(self) -> tuple[list[int], list[int]]:
        """Every shard and every replica; their peer numbers."""
        shards = [self.shard(k) for k in range(self.cluster.num_shards)]
        return shards, [self.hello("replica", i) for i in range(self.cluster.num_replicas)]

    def lease(self, peer: int) -> Lease | None:
        """What the coordinator lends to a replica that asks."""
        self.say(peer, "lease")
        (reply,) = self.sent(peer)
        return reply["lease"]

    def progress(self, peer: int, lease: Lease, upto: int, steps: int = 1) -> list[Instruction]:
        return self.say(
            peer,
            "progress",
            progress=Progress(lease.id, upto),
            samples=upto - lease.start,
            steps=steps,
            loss_sum=2.0 * (upto - lease.start),
            seconds=0.5,
            waiting_s=0.1,
            staleness={"0": {"0": steps}},
            refused={},
            clipped=0,
        )

    def work_off(self, peer: int) -> None:
        """Lease, finish and report until nothing is left."""
        while lease := self.lease(peer):
            self.progress(peer, lease, lease.stop)

    def lose(self, peer: int, reason: str = "connection closed") -> list[Instruction]:
        self.out = self.coordinator.lose(peer, reason)
        return self.out

    def ended(self, role: str, index: int, pid: int, code: int) -> None:
        """The parent of a process tells how it ended."""
        self.out = self.coordinator.ended(role, index, pid, code)

    def give_up(self) -> None:
        """Let the time pass in which parents may tell how processes ended."""
        self.tick()
        self.tick(TELLING_S + 0.1)

    def tick(self, seconds: float = 0.0) -> list[Instruction]:
        """Time passes, during which nobody says anything."""
        self.now += seconds
        self.out = self.coordinator.tick(self.now)
        return self.out

    def tick_with_heartbeats(self, seconds: float, peers: list[int]) -> list[Instruction]:
        """Time passes, during which only `peers` are heard."""
        out: list[Instruction] = []
        before, num_ticks = self.now, math.ceil(4 * seconds)
        for tick in range(1, num_ticks + 1):
            self.now = before + seconds * tick / num_ticks
            for peer in peers:
                self.say(peer, "heartbeat")
            out += self.tick()
        self.out = out
        return out

    def fenced(self, shard: int, replica: int, incarnation: int, progress: Any) -> None:
        self.say(shard, "fenced", replica=replica, incarnation=incarnation, progress=progress)

    def snapshotted(
        self, shard: int, id: int, *progress: tuple[int, int, int, int], cost_s: float = 0.0
    ) -> None:
        """A shard has written its part; `progress` as (replica, incarnation, lease, upto).

        A tenth of the cost is time in which pushes were held, the rest that of writing.
        """
        costs = {"held_s": cost_s / 10, "wrote_s": cost_s * 9 / 10}
        self.say(shard, "snapshotted", id=id, version=9, digests={}, progress=progress, **costs)

    def sent(self, peer: int, op: str | None = None) -> list[dict[str, Any]]:
        """Messages to `peer` among the last instructions."""
        messages = [i.message for i in self.out if isinstance(i, Send) and i.peer == peer]
        return [m for m in messages if op in (None, m["op"])]

    def rows(self, event: str) -> list[dict[str, Any]]:
        """Rows of the event log among the last instructions."""
        return [dict(i.values) for i in self.out if isinstance(i, Record) and i.event == event]

    def drops(self) -> list[Drop]:
        return [i for i in self.out if isinstance(i, Drop)]

    def commits(self) -> list[Commit]:
        return [i for i in self.out if isinstance(i, Commit)]

    @property
    def finished(self) -> bool:
        return any(isinstance(i, Finish) for i in self.out)
