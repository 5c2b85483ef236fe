"""The side that no rank is on: gathers the ranks, keeps their checkpoints and measures them.

When one rank is lost nobody can go on: all go back to the newest checkpoint and begin another
attempt once a successor is there.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from engine import checkpoint
from engine.checkpoint import Checkpoint, ShardFile
from engine.config import ClusterConfig
from engine.coordinator_server import CoordinatorServer, Heard
from engine.events import EventLog
from engine.frames import Message
from engine.instructions import RunFailedError
from engine.problem import Problem
from engine.processes import end_process
from engine.seats import Seat
from engine.silence import Silence
from engine.synchronous.plan import Plan, Step
from engine.synchronous.spec import SynchronousSpec

_TICK_S = 0.25


class SynchronousDriver:
    """Events in, files and rows out; `drive` returns when the final checkpoint is measured."""

    def __init__(
        self,
        server: CoordinatorServer,
        spec: SynchronousSpec,
        problem: Problem,
        cluster: ClusterConfig,
        identity: Mapping[str, str],
        start: Checkpoint,
        events: EventLog,
    ) -> None:
        self._server = server
        self._spec = spec
        self._problem = problem
        self._cluster = cluster
        self._identity = identity
        self._events = events
        self._epoch_size = sum(problem.unit_sizes)
        self._newest = start
        self._seats = [Seat() for _ in range(spec.num_ranks)]
        self._silence = Silence(cluster)
        self._samples = [0] * spec.num_ranks
        self._attempt = 0
        self._training = False
        self._stop = threading.Event()
        self._stopping = self._stopped = False
        self._plan: Plan
        self._steps: Iterator[Step]
        self._planned = 0
        self._measurer = ThreadPoolExecutor(1, "validate")
        self._measurements: deque[tuple[Future[dict[str, float]], Checkpoint]] = deque()

    def drive(self, check_ranks: Callable[[], None]) -> Checkpoint | None:
        """Handle events until the run is finished; return its final checkpoint, None if stopped.

        Args:
            check_ranks: called several times a second; raises when a rank cannot go on.
        """
        while not self._newest.final or self._measurements:
            if self._stop.is_set() and not self._stopping:
                self._ask_for_last_checkpoint()
            if self._stopped:
                return None
            self._handle_events()
            self._drop_silent()
            self._collect_measurements()
            check_ranks()
        self._events.record(
            "finished", samples=self._newest.num_counted, elapsed_s=self._events.elapsed_s
        )
        for seat in self._seats:
            if seat.peer is not None:
                self._server.send(seat.peer, {"op": "stop"})
        return self._newest

    def stop(self) -> None:
        """Have `drive` return after one more checkpoint. May be called from any thread."""
        self._stop.set()

    def close(self) -> None:
        """Measure nothing any more."""
        self._measurer.shutdown(wait=False, cancel_futures=True)

    def _ask_for_last_checkpoint(self) -> None:
        self._stopping = True
        self._events.record("stopping")
        writer = self._seats[0].peer
        if self._newest.final or not self._training or writer is None:
            self._stopped = True
        else:
            self._server.send(writer, {"op": "save"})

    def _handle_events(self) -> None:
        for event in self._server.coming(_TICK_S):
            if isinstance(event, Heard):
                self._hear(event.peer, event.message)
            elif (rank := self._rank_of(event.peer)) is not None:
                self._lose(rank, event.reason)

    def _rank_of(self, peer: int) -> int | None:
        return next((r for r, seat in enumerate(self._seats) if seat.peer == peer), None)

    def _hear(self, peer: int, message: Message) -> None:
        now = time.monotonic()
        if message["op"] == "hello":
            rank = int(message["index"])
            if self._seats[rank].peer is not None:
                self._lose(rank, "a successor connected")
            self._seats[rank].take(peer, int(message["pid"]), str(message["worker"]), now)
            if all(seat.peer is not None for seat in self._seats):
                self._begin()
            return
        if (found := self._rank_of(peer)) is None:  # hung up on since
            return
        self._seats[found].heard = now
        match message["op"]:
            case "progress":
                self._progress(found, message)
            case "written":
                self._commit(message)
                self._stopped = self._stopping
            case "write_failed":
                self._write_failed(message)
                self._stopped = self._stopping

    def _begin(self) -> None:
        self._attempt += 1
        self._training = True
        start = self._newest
        self._plan = Plan(
            self._problem.unit_sizes, self._spec.config, self._spec.num_ranks, start.counted
        )
        self._steps, self._planned = self._plan.steps(), start.num_steps
        self._events.record(
            "start",
            num_samples_total=self._plan.num_total,
            num_epochs=self._spec.config.num_epochs,
            resumed_at_samples=start.num_counted,
            replicas=self._spec.num_ranks,
            shards=0,
        )
        for rank, seat in enumerate(self._seats):
            assert seat.peer is not None
            self._events.record("rank_joined", replica=rank, attempt=self._attempt, pid=seat.pid)
            begin = {"op": "begin", "attempt": self._attempt, "checkpoint": str(start.folder)}
            begin["id"] = checkpoint.next_id(self._spec.checkpoints)
            self._server.send(seat.peer, begin)

    def _lose(self, rank: int, reason: str) -> None:
        """One rank is gone; once training, all have to begin again."""
        seat = self._seats[rank]
        seat.peer = None
        if self._newest.final or not self._training:
            return
        seat.restarts += 1
        if seat.restarts > self._cluster.max_restarts:
            raise RunFailedError(
                f"rank {rank} was lost {seat.restarts} times, cluster.max_restarts="
                f"{self._cluster.max_restarts}; the last time: {reason}"
            )
        self._training, self._stopped = False, self._stopping
        self._events.record("rank_lost", replica=rank, pid=seat.pid, reason=reason)
        for other in self._seats:
            if other.peer is not None:
                self._server.drop(other.peer)
                other.peer = None

    def _drop_silent(self) -> None:
        for seat in self._silence.of(self._seats, time.monotonic()):
            if seat.peer is None or (rank := self._rank_of(seat.peer)) is None:
                continue  # dropped with the one before
            self._server.drop(seat.peer)
            end_process(seat.pid)
            self._lose(rank, self._silence.reason)

    def _progress(self, rank: int, message: Message) -> None:
        self._samples[rank] += message["samples"]
        self._events.record(
            "progress",
            replica=rank,
            samples=message["num_counted"],
            replica_samples=self._samples[rank],
            loss=message["loss_sum"] / message["samples"],
            images_per_s=message["samples"] / message["seconds"],
            staleness={},
            waiting_s=message["waiting_s"],
        )

    def _commit(self, message: Message) -> None:
        """Make what rank 0 has written a checkpoint; which samples it holds, the plan knows."""
        while self._planned < message["num_steps"]:
            self._plan.count(next(self._steps))
            self._planned += 1
        try:
            self._newest = checkpoint.commit(
                self._spec.checkpoints,
                message["id"],
                identity=self._identity,
                shards=[ShardFile(message["version"], message["digests"])],
                counted=self._plan.counted(),
                num_steps=message["num_steps"],
                elapsed_s=self._events.elapsed_s,
                final=message["final"],
                keep=self._spec.config.keep_checkpoints,
            )
        except OSError as error:
            self._write_failed({"reason": str(error), "final": message["final"]})
            return
        samples, path = self._newest.num_counted, str(self._newest.folder)
        self._events.record("checkpoint", samples=samples, path=path)
        if message["validate"]:
            measured = self._measurer.submit(self._measure, self._newest.read_parameters())
            self._measurements.append((measured, self._newest))

    def _write_failed(self, message: Message) -> None:
        if message["final"]:
            raise RunFailedError(f"cannot write the final checkpoint: {message['reason']}")
        self._events.record("commit_failed", reason=message["reason"])

    def _measure(self, parameters: torch.Tensor) -> dict[str, float]:
        torch.set_num_threads(1)  # the cores belong to the ranks
        return self._problem.validate(parameters)

    def _collect_measurements(self) -> None:
        while self._measurements and self._measurements[0][0].done():
            future, measured = self._measurements.popleft()
            self._events.record(
                "validation",
                samples=measured.num_counted,
                epoch=round(measured.num_counted / self._epoch_size, 4),
                metrics=future.result(),
            )
