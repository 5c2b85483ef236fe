"""The coordinator at work: its decisions carried out on sockets, files, clock and processes."""

import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from engine import checkpoint, memory
from engine.checkpoint import Checkpoint, ShardFile
from engine.config import ClusterConfig, DownpourConfig
from engine.coordinator import Coordinator
from engine.coordinator_server import CoordinatorServer, Heard
from engine.events import EventLog
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
from engine.journal import Journal
from engine.ledger import Ledger
from engine.problem import Problem
from engine.processes import end_process
from engine.run_spec import RunSpec, segment_name
from engine.seats import Seats
from engine.snapshots import Snapshots
from engine.warm_start import FOLDER, WarmStart

_TICK_S = 0.25
#: Mini-batches in one lease: what a lost replica gives back at most, beside what it had counted.
_LEASE_MINIBATCHES = 8


class Training:
    """The coordinator with its surroundings: sockets, files, clock, validation."""

    def __init__(
        self,
        server: CoordinatorServer,
        run: RunSpec,
        problem: Problem,
        config: DownpourConfig,
        cluster: ClusterConfig,
        identity: Mapping[str, str],
        start: Checkpoint,
        events: EventLog,
        seats: Seats | None = None,
    ) -> None:
        self._server = server
        self._run = run
        self._problem = problem
        self._config = config
        self._cluster = cluster
        self._identity = identity
        self._events = events
        self._final: Checkpoint | None = None
        self._finished = False
        self._kept = run.checkpoints.parent / FOLDER
        self._stop = threading.Event()
        self._endings: queue.SimpleQueue[tuple[str, int, int, int, int]] = queue.SimpleQueue()
        self._measurer = ThreadPoolExecutor(1, "validate")
        self._measurement: tuple[Future[dict[str, float]], Commit] | None = None
        ledger = Ledger(
            problem.unit_sizes,
            config.num_epochs,
            lease_size=_LEASE_MINIBATCHES * config.minibatch_size,
            seed=config.seed,
            counted=start.counted,
        )
        self._epoch_size = sum(problem.unit_sizes)
        snapshots = Snapshots(
            ledger,
            config,
            num_shards=cluster.num_shards,
            shards_of=run.shards_of,
            epoch_size=self._epoch_size,
            next_id=checkpoint.next_id(run.checkpoints),
            now=time.monotonic(),
        )
        self._coordinator = Coordinator(
            ledger,
            snapshots,
            config,
            cluster,
            checkpoint=str(start.folder),
            num_steps=start.num_steps,
            warm_start=WarmStart(
                config.warm_start, elapsed_s=start.elapsed_s, over=self._kept.exists()
            ),
            seats=seats,
        )
        self._journals = [
            Journal(
                folder,
                run,
                config,
                start,
                cluster.num_replicas,
                lambda: self._events.elapsed_s,
                durable=folder == run.log,
            )
            for folder in (run.memory, run.log)
            if folder
        ]
        events.record(
            "start",
            num_samples_total=ledger.num_total,
            num_epochs=config.num_epochs,
            resumed_at_samples=ledger.num_counted,
            replicas=cluster.num_replicas,
            shards=cluster.num_shards,
        )

    def drive(self, check_roles: Callable[[], None]) -> Checkpoint | None:
        """Handle events until the run is finished; return its final checkpoint, None if stopped.

        Args:
            check_roles: called several times a second; raises when a role cannot go on.
        """
        stopping = False
        while not self._finished:
            self._handle_events()
            while not self._endings.empty():
                self._carry_out(self._coordinator.ended(*self._endings.get()))
            self._collect_measurement()
            if self._stop.is_set() and not stopping:
                stopping = True
                self._events.record("stopping")
                self._carry_out(self._coordinator.stop())
            self._carry_out(self._coordinator.tick(time.monotonic()))
            check_roles()
        return self._final

    def stop(self) -> None:
        """Have `drive` return after one more checkpoint. May be called from any thread."""
        self._stop.set()

    def ended(self, role: str, index: int, pid: int, code: int, oom_kills: int = 0) -> None:
        """The process of a role's worker ended; see `engine.losses.in_words`. For any thread."""
        cluster = self._cluster
        num_seats = {"replica": cluster.num_replicas, "shard": cluster.num_shards}
        if index < num_seats.get(role, 0):
            self._endings.put((role, index, pid, code, oom_kills))

    def close(self) -> None:
        """Write nothing any more."""
        for journal in self._journals:
            journal.close()
        self._measurer.shutdown(wait=False, cancel_futures=True)

    def _handle_events(self) -> None:
        for event in self._server.coming(_TICK_S):
            if isinstance(event, Heard):
                now = time.monotonic()
                self._carry_out(self._coordinator.hear(event.peer, event.message, now))
            else:
                self._carry_out(self._coordinator.lose(event.peer, event.reason))

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(peer, message):
                    self._server.send(peer, message)
                case Lent(holder, lease):
                    for journal in self._journals:
                        journal.lent(holder, lease)
                case Record(event, values):
                    self._events.record(event, **values)
                    if event == "replica_settled":
                        self._forget(values)
                case Commit():
                    self._commit(instruction)
                case Drop(peer, pid, _):
                    self._server.drop(peer)
                    end_process(pid)
                case Finish():
                    self._finished = True

    def _forget(self, values: Mapping[str, Any]) -> None:
        """Free the memory of a lost replica: no shard needs its gradients any more."""
        name = segment_name(values["replica"], values["incarnation"])
        memory.remove(self._run.memory / name)

    def _commit(self, commit: Commit) -> None:
        try:
            written = self._write(commit)
        except OSError as error:
            if commit.final:
                raise RunFailedError(f"cannot write the final checkpoint: {error}") from error
            self._events.record("commit_failed", reason=str(error))
            self._carry_out(self._coordinator.measured(False))  # there is nothing to measure
            return
        self._events.record("checkpoint", samples=commit.num_counted, path=str(written.folder))
        self._carry_out(self._coordinator.committed(commit, str(written.folder)))
        if commit.warm_start:
            checkpoint.keep(written, self._kept)
        if commit.validate:
            parameters = written.read_parameters()
            self._measurement = (self._measurer.submit(self._measure, parameters), commit)
        if commit.final:
            self._final = written

    def _write(self, commit: Commit) -> Checkpoint:
        return checkpoint.commit(
            self._run.checkpoints,
            commit.id,
            identity=self._identity,
            shards=[ShardFile(m["version"], m["digests"]) for m in commit.shards],
            counted=commit.counted,
            num_steps=commit.num_steps,
            elapsed_s=self._events.elapsed_s,
            final=commit.final,
            keep=self._config.keep_checkpoints,
        )

    def _measure(self, parameters: torch.Tensor) -> dict[str, float]:
        torch.set_num_threads(1)  # the cores belong to the replicas
        return self._problem.validate(parameters)

    def _collect_measurement(self) -> None:
        if self._measurement is None or not self._measurement[0].done():
            return
        future, commit = self._measurement
        self._measurement = None
        metrics = future.result()
        epoch = commit.num_counted / self._epoch_size
        self._events.record(
            "validation",
            samples=commit.num_counted,
            epoch=round(epoch, 4),
            metrics=metrics,
        )
        if commit.final:
            self._events.record(
                "finished", samples=commit.num_counted, elapsed_s=self._events.elapsed_s
            )
        self._carry_out(self._coordinator.measured(commit.final, metrics))
