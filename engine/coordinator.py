"""The coordinator's decisions: who works on what, who is alive, what happens next. Pure.

Messages and the clock come in as arguments, instructions go out; sockets, files and Dask are in
`engine.coordinator_server` and `engine.dask_train`. It never holds a parameter vector.

    replica: hello → welcome, then lease* and progress*, heartbeats in between
    shard:   hello → assign → serving, then fence* and
             (snapshot → held → cut → snapshotted, or release when it is given up)*
"""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from engine.config import ClusterConfig, DownpourConfig
from engine.frames import Message
from engine.instructions import (
    Commit,
    Finish,
    Instruction,
    Lent,
    Record,
    RunFailedError,
    Send,
)
from engine.ledger import Ledger, Progress
from engine.losses import Losses, in_words
from engine.replica_reports import late_push, progress_rows
from engine.roster import Roster
from engine.schedule import scale_at
from engine.seats import ReplicaSeat, Seat, Seats
from engine.settling import Settling
from engine.snapshots import Snapshots
from engine.warm_start import WarmStart


class Coordinator:
    """Drives one Downpour run; see the module's docstring for the conversation."""

    def __init__(
        self,
        ledger: Ledger,
        snapshots: Snapshots,
        config: DownpourConfig,
        cluster: ClusterConfig,
        *,
        checkpoint: str,
        num_steps: int,
        warm_start: WarmStart,
        seats: Seats | None = None,
    ) -> None:
        """Start with the shards that are seated.

        Args:
            checkpoint: what shards restore when their memory is new.
            num_steps: mini-batches done before, in the run that is resumed.
            seats: of the run's phase before; None: nobody is connected yet.
        """
        self._ledger = ledger
        self._snapshots = snapshots
        self._config = config
        self._checkpoint = checkpoint
        self._num_steps = num_steps
        self._warm_start = warm_start
        self._roster = Roster(cluster, seats)
        self._replicas, self._shards = self._roster.replicas, self._roster.shards
        self._settling = Settling(cluster.num_shards)
        self._losses = Losses(cluster.max_restarts)
        self._finished = self._stopping = False

    def hear(self, peer: int, message: Message, now: float) -> list[Instruction]:
        """A message from a connected peer."""
        if message["op"] == "hello":
            return self._greet(peer, message, now)
        place = self._roster.place_of(peer)
        if place is None:  # dropped since; what it says no longer counts
            return []
        role, index = place
        self._roster.seat(role, index).heard = now
        if role == "replica":
            return self._hear_replica(index, message)
        return self._hear_shard(index, message, now)

    def lose(self, peer: int, reason: str) -> list[Instruction]:
        """A connection ended."""
        place = self._roster.place_of(peer)
        if place is None:
            return []
        role, index = place
        self._roster.leave(peer)
        lose = self._lose_replica if role == "replica" else self._lose_shard
        return lose(index, reason)

    def ended(
        self, role: str, index: int, pid: int, code: int, oom_kills: int = 0
    ) -> list[Instruction]:
        """A process on the worker of a role has ended, says its parent; see `losses.in_words`."""
        self._losses.ended(pid, code, oom_kills)
        seat = self._roster.seat(role, index)
        if pid not in seat.pids and not self._done(seat):  # it came and went without a word
            seat.pids.add(pid)
            self._losses.lost(role, index, pid, f"{role}-{index}", "before it said hello")
        values = {"role": role, "index": index, "pid": pid, "code": code}
        return [Record("process_ended", values | {"how": in_words(code, oom_kills)})]

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed: who is silent, what is due?"""
        instructions = self._drop_silent(now)
        self._losses.check(now)
        self._roster.check_absent(now)
        if self._finished or not self._roster.all_shards_serve:
            return instructions
        if self._warm_start.reached(self._num_steps, now):
            self._snapshots.demand()
        if request := self._snapshots.request(now):
            instructions += self._to_shards(request)
        return instructions

    def stop(self) -> list[Instruction]:
        """The run has to end early: with one more snapshot, as soon as all shards serve."""
        self._stopping = True
        return [] if self._snapshots.stop() else [Finish()]

    def committed(self, commit: Commit, checkpoint: str) -> list[Instruction]:
        """The checkpoint of a snapshot is durable: shards restore it, and may forget their logs."""
        self._checkpoint = checkpoint
        return [
            Send(shard.peer, {"op": "committed", "version": written["version"]})
            for shard, written in zip(self._shards, commit.shards, strict=True)
            if shard.peer is not None
        ]

    def measured(
        self, final: bool, metrics: Mapping[str, float] = MappingProxyType({})
    ) -> list[Instruction]:
        """The committed checkpoint has been validated, or could not be written."""
        self._snapshots.measured()
        if metrics:
            self._warm_start.measured(metrics)
        if not final:
            return []
        self._finished = True
        # Shards may serve another phase.
        replicas = [seat.peer for seat in self._replicas if seat.peer is not None]
        return [*(Send(peer, {"op": "stop"}) for peer in replicas), Finish()]

    def _greet(self, peer: int, hello: Message, now: float) -> list[Instruction]:
        role, index = str(hello["role"]), int(hello["index"])
        seat = self._roster.seat(role, index)
        if hello.get("life") and seat.peer is not None and hello["pid"] != seat.pid:
            # It was taken for dead, woke up, was refused, and finds another in its place.
            return [*late_push(index, hello), Send(peer, {"op": "stop"})]
        lost = self.lose(seat.peer, "a successor connected") if seat.peer is not None else []
        self._roster.sit(peer, hello, now)
        if role == "replica":
            return [*lost, *late_push(index, hello), *self._welcome()]
        epoch = self._shards[index].epoch
        assign = {"op": "assign", "epoch": epoch, "checkpoint": self._checkpoint}
        return [*lost, Send(peer, assign)]

    def _done(self, seat: Seat) -> bool:
        """True when nothing more is expected of who sits there."""
        if isinstance(seat, ReplicaSeat):
            return seat.quarantined or self._ledger.complete
        return self._finished

    def _welcome(self) -> list[Instruction]:
        if not self._roster.all_shards_serve or self._finished:
            return []
        return self._roster.welcome()

    def _hear_replica(self, index: int, message: Message) -> list[Instruction]:
        match message["op"]:
            case "lease":
                self._losses.of_use("replica", index)
                return self._lend(index)
            case "quarantine":
                return self._quarantine(index, str(message["reason"]))
            case "progress":
                return self._count(index, message)
        return []

    def _quarantine(self, index: int, reason: str) -> list[Instruction]:
        """A replica gives up, because none of its gradients is of use; the others go on."""
        seat = self._replicas[index]
        seat.quarantined = True
        if all(replica.quarantined for replica in self._replicas):
            raise RunFailedError(f"every replica computes gradients without value; last: {reason}")
        values = {"replica": index, "incarnation": seat.incarnation, "reason": reason}
        return [Record("replica_quarantined", values)]

    def _lend(self, index: int) -> list[Instruction]:
        seat = self._replicas[index]
        assert seat.peer is not None
        holder = (index, seat.incarnation)
        present = [replica.peer is not None for replica in self._replicas]
        waits = self._warm_start.holds_back(index, present)
        lease = None if waits else self._ledger.lease(holder)
        scale = scale_at(self._config.schedule, self._ledger.fraction(lease)) if lease else 1.0
        reply = {"op": "lease", "lease": lease, "scale": scale, "done": self._ledger.complete}
        lent: list[Instruction] = [Lent(holder, lease)] if lease else []
        return [*lent, Send(seat.peer, reply)]

    def _count(self, index: int, message: Message) -> list[Instruction]:
        seat = self._replicas[index]
        self._ledger.count((index, seat.incarnation), Progress(*message["progress"]))
        if message["steps"]:
            self._num_steps += message["steps"]
            seat.samples += message["samples"]
        return [*progress_rows(index, message, self._ledger.num_counted, seat.samples)]

    def _lose_replica(self, index: int, reason: str) -> list[Instruction]:
        seat = self._replicas[index]
        if self._ledger.complete:
            return []
        if not seat.quarantined:
            self._losses.lost("replica", index, seat.pid, seat.worker, reason)
        values = {"replica": index, "incarnation": seat.incarnation, "pid": seat.pid}
        if not seat.welcomed:
            return [Record("replica_lost", values | {"reason": reason})]
        fence = self._settling.begin((index, seat.incarnation))
        fences = [Send(s.peer, fence) for s in self._shards if s.address and s.peer is not None]
        return [Record("replica_lost", values | {"reason": reason}), *fences]

    def _to_shards(self, message: Message) -> list[Instruction]:
        return [Send(peer, message) for peer in self._roster.shard_peers]

    def _hear_shard(self, index: int, message: Message, now: float) -> list[Instruction]:
        match message["op"]:
            case "serving":
                return self._serving(index, message)
            case "fenced":
                return self._fenced(index, message)
            case "held":
                cuts = self._snapshots.hold(index, message)
                return [
                    Send(shard.peer, cut)
                    for shard, cut in zip(self._shards, cuts, strict=False)
                    if shard.peer is not None
                ]
            case "snapshotted":
                commit = self._snapshots.answer(index, message, now)
                if not commit:
                    return []
                learned = self._snapshots.learned()
                return [*learned, *self._committed(commit, now), *self._stopped()]
            case "log_long":
                self._snapshots.demand()
            case "snapshot_failed":
                record = self._snapshots.fail(index, message, now)
                if record and self._warm_start.reached(self._num_steps, now):
                    self._warm_start.over = True  # it cannot be kept, but nobody waits for that
                return [record, *self._stopped()] if record else []
        return []

    def _committed(self, commit: Commit, now: float) -> list[Instruction]:
        """A snapshot is complete; the first one after the warm start's end is kept."""
        if not self._warm_start.reached(self._num_steps, now):
            return [commit]
        self._warm_start.over = True
        values = {"samples": commit.num_counted, "steps": self._num_steps}
        return [replace(commit, warm_start=True), Record("warm_start_over", values)]

    def _stopped(self) -> list[Instruction]:
        """What follows the end of a snapshot: nothing, unless it was the last one."""
        self._finished |= self._stopping
        return [Finish()] if self._stopping else []

    def _serving(self, index: int, message: Message) -> list[Instruction]:
        self._losses.of_use("shard", index)
        served = self._roster.serve(index, message)
        peer = self._shards[index].peer
        assert peer is not None
        fences = [Send(peer, fence) for fence in self._settling.requests()]
        return [*served, *fences, *self._welcome()]

    def _fenced(self, index: int, message: Message) -> list[Instruction]:
        settled = self._settling.answer(index, message)
        if settled is None:
            return []
        holder, reached = settled
        returned = self._ledger.settle(holder, reached)
        values = {"replica": holder[0], "incarnation": holder[1], "samples_returned": returned}
        return [Record("replica_settled", values)]

    def _lose_shard(self, index: int, reason: str) -> list[Instruction]:
        seat = self._shards[index]
        if self._finished:
            return []
        release = self._snapshots.abandon()
        self._losses.lost("shard", index, seat.pid, seat.worker, reason)
        values = {"shard": index, "epoch": seat.epoch, "pid": seat.pid, "reason": reason}
        return [Record("shard_lost", values), *(self._to_shards(release) if release else [])]

    def _drop_silent(self, now: float) -> list[Instruction]:
        instructions: list[Instruction] = []
        for peer, drop, reason in self._roster.silent(now):
            instructions += [drop, *self.lose(peer, reason)]
        return instructions
