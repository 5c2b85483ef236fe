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
    Drop,
    Finish,
    Instruction,
    Lent,
    Record,
    RunFailedError,
    Send,
)
from engine.ledger import Holder, Ledger, Progress
from engine.losses import Losses, in_words
from engine.schedule import scale_at
from engine.seats import ReplicaSeat, Seat, Seats, ShardSeat
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
        seats = seats or Seats(cluster.num_replicas, cluster.num_shards)
        self._ledger = ledger
        self._snapshots = snapshots
        self._config = config
        self._cluster = cluster
        self._checkpoint = checkpoint
        self._num_steps = num_steps
        self._warm_start = warm_start
        self._replicas, self._shards = seats.replicas, seats.shards
        self._roles = seats.shard_peers  # and the replicas' that come
        self._settling: dict[Holder, dict[int, Progress | None]] = {}
        self._losses = Losses(cluster.max_restarts)
        self._pioneer: int | None = None  # the replica that works alone in the warm start
        self._finished = self._stopping = False

    def hear(self, peer: int, message: Message, now: float) -> list[Instruction]:
        """A message from a connected peer."""
        if message["op"] == "hello":
            return self._greet(peer, message, now)
        if peer not in self._roles:  # dropped since; what it says no longer counts
            return []
        role, index = self._roles[peer]
        if role == "replica":
            self._replicas[index].heard = now
            return self._hear_replica(index, message)
        self._shards[index].heard = now
        return self._hear_shard(index, message, now)

    def lose(self, peer: int, reason: str) -> list[Instruction]:
        """A connection ended."""
        if peer not in self._roles:
            return []
        role, index = self._roles.pop(peer)
        lose = self._lose_replica if role == "replica" else self._lose_shard
        return lose(index, reason)

    def ended(
        self, role: str, index: int, pid: int, code: int, oom_kills: int = 0
    ) -> list[Instruction]:
        """A process on the worker of a role has ended, says its parent; see `losses.in_words`."""
        self._losses.ended(pid, code, oom_kills)
        seat = self._seat(role, index)
        if pid not in seat.pids and not self._done(seat):  # it came and went without a word
            seat.pids.add(pid)
            self._losses.lost(role, index, pid, f"{role}-{index}", "before it said hello")
        values = {"role": role, "index": index, "pid": pid, "code": code}
        return [Record("process_ended", values | {"how": in_words(code, oom_kills)})]

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed: who is silent, what is due?"""
        instructions = self._drop_silent(now)
        self._losses.check(now)
        self._check_absent(now)
        if self._finished or not all(shard.address for shard in self._shards):
            return instructions
        if self._warm_start.reached(self._num_steps, now):
            self._snapshots.demand()
        if request := self._snapshots.request(now):
            instructions += [Send(s.peer, request) for s in self._shards if s.peer is not None]
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
        seat = self._seat(role, index)
        if hello.get("life") and seat.peer is not None and hello["pid"] != seat.pid:
            # It was taken for dead, woke up, was refused, and finds another in its place.
            return [*_late_push(index, hello), Send(peer, {"op": "stop"})]
        lost = self.lose(seat.peer, "a successor connected") if seat.peer is not None else []
        self._roles[peer] = (role, index)
        seat.take(peer, int(hello["pid"]), str(hello["worker"]), now)
        if isinstance(seat, ReplicaSeat):
            seat.incarnation += 1
            seat.welcomed = False
            return [*lost, *_late_push(index, hello), *self._welcome()]
        assert isinstance(seat, ShardSeat)
        seat.epoch += 1
        assign = {"op": "assign", "epoch": seat.epoch, "checkpoint": self._checkpoint}
        return [*lost, Send(peer, assign)]

    def _seat(self, role: str, index: int) -> Seat:
        return self._replicas[index] if role == "replica" else self._shards[index]

    def _done(self, seat: Seat) -> bool:
        """True when nothing more is expected of who sits there."""
        if isinstance(seat, ReplicaSeat):
            return seat.quarantined or self._ledger.complete
        return self._finished

    def _welcome(self) -> list[Instruction]:
        """Welcome the replicas that wait, while every shard serves."""
        addresses = [(*s.address, s.epoch) for s in self._shards if s.address]
        if len(addresses) < len(self._shards) or self._finished:
            return []
        instructions: list[Instruction] = []
        for index, seat in enumerate(self._replicas):
            if seat.peer is not None and not seat.welcomed:
                seat.welcomed = True
                welcome = {"op": "welcome", "incarnation": seat.incarnation, "shards": addresses}
                values = {"replica": index, "incarnation": seat.incarnation, "pid": seat.pid}
                instructions += [Send(seat.peer, welcome), Record("replica_joined", values)]
        return instructions

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
        lease = None if self._held_back(index) else self._ledger.lease(holder)
        scale = scale_at(self._config.schedule, self._ledger.fraction(lease)) if lease else 1.0
        reply = {"op": "lease", "lease": lease, "scale": scale, "done": self._ledger.complete}
        lent: list[Instruction] = [Lent(holder, lease)] if lease else []
        return [*lent, Send(seat.peer, reply)]

    def _held_back(self, index: int) -> bool:
        """Warm start: one replica alone until its end has been kept."""
        if self._warm_start.over:
            return False
        if self._pioneer is None or self._replicas[self._pioneer].peer is None:
            self._pioneer = index
        return index != self._pioneer

    def _count(self, index: int, message: Message) -> list[Instruction]:
        seat = self._replicas[index]
        self._ledger.count((index, seat.incarnation), Progress(*message["progress"]))
        refusals: list[Instruction] = [
            Record("push_refused", {"replica": index, "message": text, "pushes": count})
            for text, count in message["refused"].items()
        ]
        if not message["steps"]:
            if message["staleness"]:  # of pushes that were on their way at the last report
                pushes = {"replica": index, "staleness": message["staleness"]}
                refusals.append(Record("pushes", pushes))
            return refusals
        self._num_steps += message["steps"]
        seat.samples += message["samples"]
        row = {
            "replica": index,
            "samples": self._ledger.num_counted,
            "replica_samples": seat.samples,
            "loss": message["loss_sum"] / message["samples"],
            "images_per_s": message["samples"] / message["seconds"],
            "staleness": message["staleness"],
            "waiting_s": message["waiting_s"],
            "clipped": message["clipped"],
        }
        return [Record("progress", row), *refusals]

    def _lose_replica(self, index: int, reason: str) -> list[Instruction]:
        seat = self._replicas[index]
        seat.peer = None
        if self._ledger.complete:
            return []
        if not seat.quarantined:
            self._losses.lost("replica", index, seat.pid, seat.worker, reason)
        values = {"replica": index, "incarnation": seat.incarnation, "pid": seat.pid}
        if not seat.welcomed:
            return [Record("replica_lost", values | {"reason": reason})]
        holder = (index, seat.incarnation)
        self._settling[holder] = {}
        fences = [self._fence(shard, holder) for shard in self._shards if shard.address]
        return [Record("replica_lost", values | {"reason": reason}), *fences]

    def _fence(self, shard: ShardSeat, holder: Holder) -> Instruction:
        assert shard.peer is not None
        replica, incarnation = holder
        return Send(shard.peer, {"op": "fence", "replica": replica, "incarnation": incarnation})

    def _hear_shard(self, index: int, message: Message, now: float) -> list[Instruction]:
        match message["op"]:
            case "serving":
                return self._serving(index, message)
            case "fenced":
                return self._fenced(index, message)
            case "held":
                cut = self._snapshots.hold(index, message)
                peers = [s.peer for s in self._shards if s.peer is not None] if cut else []
                return [Send(peer, cut) for peer in peers if cut]
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
        seat = self._shards[index]
        seat.address = (message["host"], message["port"])
        self._losses.of_use("shard", index)
        values = {"shard": index, "epoch": seat.epoch, "version": message["version"]}
        values |= {"restored_from": message["restored_from"], "pid": seat.pid}
        moved = {"op": "shard", "index": index, "address": (*seat.address, seat.epoch)}
        return [
            Record("shard_serving", values),
            *(Send(r.peer, moved) for r in self._replicas if r.peer is not None and r.welcomed),
            *(self._fence(seat, holder) for holder in self._settling),
            *self._welcome(),
        ]

    def _fenced(self, index: int, message: Message) -> list[Instruction]:
        holder = (message["replica"], message["incarnation"])
        if holder not in self._settling:
            return []
        progress = message["progress"]
        answers = self._settling[holder]
        answers[index] = Progress(*progress) if progress else None
        if len(answers) < len(self._shards):
            return []
        # A push that reached any shard counts: its samples are not read again.
        reached = max((p for p in answers.values() if p), default=None)
        returned = self._ledger.settle(holder, reached)
        del self._settling[holder]
        values = {"replica": holder[0], "incarnation": holder[1], "samples_returned": returned}
        return [Record("replica_settled", values)]

    def _lose_shard(self, index: int, reason: str) -> list[Instruction]:
        seat = self._shards[index]
        seat.peer = seat.address = None
        if self._finished:
            return []
        release = self._snapshots.abandon()
        others = [s.peer for s in self._shards if s.peer is not None] if release else []
        self._losses.lost("shard", index, seat.pid, seat.worker, reason)
        values = {"shard": index, "epoch": seat.epoch, "pid": seat.pid, "reason": reason}
        return [Record("shard_lost", values), *(Send(peer, release) for peer in others if release)]

    def _drop_silent(self, now: float) -> list[Instruction]:
        timeout = self._cluster.heartbeat_timeout_s
        seats: list[Seat] = [*self._replicas, *self._shards]
        instructions: list[Instruction] = []
        for seat in seats:
            if seat.peer is not None and now - seat.heard > timeout:
                peer = seat.peer
                instructions.append(Drop(peer, seat.pid, seat.worker))
                instructions += self.lose(peer, f"silent for {timeout:g} s")
        return instructions

    def _check_absent(self, now: float) -> None:
        """The run needs every shard and some replica: it does not wait for them for ever."""
        for seat in (*self._shards, *self._replicas):
            if seat.peer is not None:
                seat.absent_since = None
            elif seat.absent_since is None:
                seat.absent_since = now
        limit = self._cluster.start_timeout_s
        for index, shard in enumerate(self._shards):
            if shard.absent_since is not None and now - shard.absent_since > limit:
                raise RunFailedError(f"shard {index} has had no process for {limit:g} s")
        if all(r.absent_since is not None and now - r.absent_since > limit for r in self._replicas):
            raise RunFailedError(f"no replica has had a process for {limit:g} s")


def _late_push(replica: int, hello: Message) -> list[Instruction]:
    """What there is to record of a push that came after its life had been fenced."""
    if not hello.get("refused"):
        return []
    values = {"replica": replica, "message": hello["refused"], "pushes": 1}
    return [Record("push_refused", values)]
