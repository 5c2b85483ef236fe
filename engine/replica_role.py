"""The long-running role of a model replica, as a function of a plain specification."""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from engine.clipping import ClippedProblem, with_clipping
from engine.config import DownpourConfig
from engine.coordinator_link import CoordinatorLink
from engine.device import take_gpu
from engine.ledger import Lease
from engine.link import Directory, RemoteServer, ShardAddress, StoppedError
from engine.loader import LeaseReply, leased_minibatches, prefetched
from engine.partition import problem_of
from engine.problem import Problem, ProblemFactory
from engine.record import RecordedServer, Recorder
from engine.replica import FencedReplicaError, QuarantinedReplicaError, Replica
from engine.run_spec import RunSpec, segment_name
from engine.segment import Segment

log = logging.getLogger(__name__)
_REPORT_S = 0.5


def run_replica(
    run: RunSpec, index: int, factory: ProblemFactory, config: DownpourConfig, worker: str
) -> None:
    """Work as one model replica until every sample counts; after a fenced life starts a new one."""
    problem: Problem | None = None
    former: dict[str, Any] = {}
    while True:
        try:
            session = _ReplicaSession(run, index, config, worker, former)
        except OSError as error:
            log.warning("replica %d: the coordinator is gone: %s", index, error)
            return
        try:
            # Only now, so that a process that dies of it is missed.
            if problem is None:
                take_gpu(index)
                problem = with_clipping(problem_of(factory(), index), config.clip)
            session.work(problem)
            return
        except QuarantinedReplicaError as error:
            session.quarantine(str(error))
            return
        except (FencedReplicaError, ConnectionError, StoppedError) as error:
            if session.stopped:
                return
            log.warning("replica %d starts a new life: %s", index, error)
            refused = str(error) if isinstance(error, FencedReplicaError) else ""
            former = {"life": session.incarnation, "refused": refused}
        finally:
            session.close()


class _ReplicaSession:
    """One incarnation: its connections, its memory file, its conversation."""

    def __init__(
        self,
        run: RunSpec,
        index: int,
        config: DownpourConfig,
        worker: str,
        former: Mapping[str, Any],
    ) -> None:
        self._run = run
        self._index = index
        self._config = config
        self._link = CoordinatorLink(
            run.coordinator,
            run.token,
            "replica",
            index,
            worker,
            run.heartbeat_interval_s,
            run.tls,
            {"phase": run.phase, **former},
        )
        self.incarnation = 0  # until welcomed
        self._leases: queue.Queue[LeaseReply | None] = queue.Queue()
        self._directory: Directory | None = None
        self._server: RemoteServer | None = None
        self._recorder: Recorder | None = None
        self._problem: Problem | None = None
        self._reported = time.monotonic()
        self.stopped = False  # told so by the coordinator

    def work(self, problem: Problem) -> None:
        self._problem = problem
        welcome = self._link.receive()
        if welcome["op"] != "welcome":  # the run ended while we were starting
            self.stopped = True
            return
        self.incarnation = int(welcome["incarnation"])
        identity = (self._index, self.incarnation)
        self._directory = Directory([ShardAddress(*a) for a in welcome["shards"]], self._run.tls)
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        size, dtype = problem.layout.size, problem.layout.dtype
        path = self._run.memory / segment_name(*identity)
        segment = Segment(path, size, dtype, new=True)
        hello = {"token": self._run.token, "size": size}
        hello |= {"replica": identity[0], "incarnation": identity[1]}
        shards = self._run.shards_of[self._index]
        self._server = RemoteServer(self._directory, segment, hello, self._run.slices, shards)
        recorder = self._recorder = _recorder(self._run, identity)
        replica = Replica(
            identity,
            problem,
            self._config,
            RecordedServer(self._server, recorder) if recorder else self._server,
            (segment.gradients, segment.parameters),
            shards,
            self._report,
        )
        ask = recorder.asking(self._ask) if recorder else self._ask
        source = leased_minibatches(ask, problem, self._config.minibatch_size, self._config.seed)
        minibatches = prefetched(source, self._config.prefetch)
        replica.run(recorder.taking(minibatches) if recorder else minibatches)
        self._send_progress(replica)

    def quarantine(self, reason: str) -> None:
        """Tell the coordinator not to expect this replica again."""
        log.warning("replica %d gives up: %s", self._index, reason)
        with suppress(ConnectionError):
            self._link.send("quarantine", reason=reason)

    def close(self) -> None:
        self._link.close()
        if self._server:
            self._server.close()
        if self._recorder:
            self._recorder.close()

    def _listen(self) -> None:
        """Receive what the coordinator says until it hangs up."""
        assert self._directory is not None
        try:
            while (message := self._link.receive())["op"] != "stop":
                if message["op"] == "shard":
                    self._directory.move(message["index"], ShardAddress(*message["address"]))
                elif message["op"] == "lease":
                    lease = Lease(*message["lease"]) if message["lease"] else None
                    self._leases.put(LeaseReply(lease, message["scale"], message["done"]))
            self.stopped = True
        except OSError as error:
            log.debug("replica %d: %s", self._index, error)
        self._directory.stop()
        self._leases.put(None)

    def _ask(self) -> LeaseReply:
        """Called by the loader thread."""
        self._link.send("lease")
        if (reply := self._leases.get()) is None:
            raise StoppedError("stopped while asking for a lease")
        return reply

    def _report(self, replica: Replica) -> None:
        if time.monotonic() - self._reported >= _REPORT_S:
            self._send_progress(replica)

    def _send_progress(self, replica: Replica) -> None:
        tally, acknowledged = replica.take()
        now = time.monotonic()
        self._link.send(
            "progress",
            progress=acknowledged,
            samples=tally.samples,
            steps=tally.steps,
            loss_sum=tally.loss_sum,
            seconds=now - self._reported,
            waiting_s=tally.waiting_s,
            staleness=_by_shard(tally.staleness),
            refused=tally.refused,
            clipped=self._take_clipped(),
        )
        self._reported = now

    def _take_clipped(self) -> int:
        """Gradients clipped since the last report."""
        return self._problem.take_num_clipped() if isinstance(self._problem, ClippedProblem) else 0


def _recorder(run: RunSpec, identity: tuple[int, int]) -> Recorder | None:
    return Recorder(run.record / f"{segment_name(*identity)}.jsonl") if run.record else None


def _by_shard(staleness: Counter[tuple[int, int]]) -> dict[str, dict[str, int]]:
    """Shard -> updates -> pushes, with the keys that JSON has."""
    nested: dict[str, dict[str, int]] = {}
    for (shard, updates), pushes in sorted(staleness.items()):
        nested.setdefault(str(shard), {})[str(updates)] = pushes
    return nested
