"""A run on real sockets and files whose roles are threads: everything but Dask and processes."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engine import checkpoint
from engine.checkpoint import Checkpoint
from engine.config import ClusterConfig, DownpourConfig
from engine.coordinator_server import CoordinatorServer
from engine.events import EventLog, Listener
from engine.partition import shards_by_replica
from engine.predecessors import await_survivors
from engine.problem import ProblemFactory
from engine.replica_role import run_replica
from engine.run_memory import run_memory
from engine.run_spec import RunSpec
from engine.salvage import salvage_log
from engine.shard_role import serve_shard
from engine.start import full_identity, resume_or_begin
from engine.training import Training
from tests.engine.problems import classifier

IDENTITY = {"data": "points"}


class ThreadedRun:
    """The coordinator in the caller's thread, each role in one of its own."""

    def __init__(
        self,
        folder: Path,
        config: DownpourConfig,
        cluster: ClusterConfig,
        listen: Listener,
        *,
        factory: ProblemFactory = classifier,
        salvaging: bool = False,
    ) -> None:
        """Prepare a run; `salvaging`: in memory of a run's own, once dead ones owe nothing."""
        self.config, self.cluster, self.factory = config, cluster, factory
        if salvaging:
            await_survivors()
        problem = factory()
        slices = problem.layout.slices(cluster.num_shards)
        identity = full_identity(IDENTITY, problem, cluster.num_shards, config.name)
        checkpoints = folder / "checkpoints"
        dtype = problem.layout.dtype
        salvage_log(folder / "log")
        resharding = cluster.allow_resharding
        start = resume_or_begin(
            checkpoints, identity, problem, config.rule, slices, resharding=resharding
        )
        self.server = CoordinatorServer(cluster.host)
        self._memory = ExitStack()
        if salvaging:
            own = self._memory.enter_context(run_memory(self.server.token))
        else:
            own = folder / f"memory-{start.id}"
            own.mkdir()
        self.spec = RunSpec(
            coordinator=self.server.address,
            token=self.server.token,
            host=cluster.host,
            memory=own,
            checkpoints=checkpoints,
            size=problem.layout.size,
            dtype=dtype,
            slices=slices,
            heartbeat_interval_s=cluster.heartbeat_interval_s,
            record=folder / "record" / start.folder.name if config.record else None,
            log=folder / "log" if config.durability == "power" else None,
            log_bytes=config.log_bytes,
            shards_of=shards_by_replica(problem, cluster.num_replicas, slices),
        )
        if self.spec.log:
            self.spec.log.mkdir()
        self.events = EventLog(folder / "events.jsonl", listen, start.elapsed_s)
        self.training = Training(
            self.server, self.spec, problem, config, cluster, identity, start, self.events
        )
        self.errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start_shard(self, index: int) -> None:
        config = self.config
        self._start(
            lambda: serve_shard(
                self.spec,
                index,
                config.rule,
                config.max_staleness,
                "thread",
                config.max_push_norm,
            )
        )

    def start_replica(self, index: int) -> None:
        self._start(lambda: run_replica(self.spec, index, self.factory, self.config, "thread"))

    def start_all(self) -> None:
        for index in range(self.cluster.num_shards):
            self.start_shard(index)
        for index in range(self.cluster.num_replicas):
            self.start_replica(index)

    def drive(self) -> Checkpoint | None:
        """Go on until the end or `training.stop()`; the first error of a role ends it."""
        return self.training.drive(self.raise_errors)

    def raise_errors(self) -> None:
        if self.errors:
            raise self.errors[0]

    def all_end(self, timeout_s: float = 10.0) -> bool:
        """True when every role has returned by itself."""
        for thread in self._threads:
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in self._threads)

    def hang_up_on(self, role: str, index: int) -> None:
        """Cut a role's connection to the coordinator."""
        peer = self.training._coordinator._roster.seat(role, index).peer
        assert peer is not None
        self.server.drop(peer)

    def close(self) -> None:
        self.training.close()
        self.server.close()
        self.events.close()
        self._memory.close()

    def _start(self, role: Callable[[], None]) -> None:
        def work() -> None:
            try:
                role()
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()


@contextmanager
def threaded_run(
    folder: Path,
    config: DownpourConfig,
    listen: Listener,
    *,
    num_replicas: int = 2,
    num_shards: int = 2,
    host: str = "127.0.0.1",
    factory: ProblemFactory = classifier,
) -> Iterator[ThreadedRun]:
    """A run whose roles have not started yet; at the end they must stop without an error."""
    cluster = ClusterConfig(
        num_replicas=num_replicas,
        num_shards=num_shards,
        host=host,
        heartbeat_timeout_s=600,  # or it would end this very process
    )
    run = ThreadedRun(folder, config, cluster, listen, factory=factory)
    try:
        yield run
    finally:
        run.close()
    assert run.all_end()
    assert run.errors == []


def latest(folder: Path) -> Checkpoint:
    """The newest checkpoint of a run."""
    return checkpoint.read(max((folder / "checkpoints").glob("0*[0-9]")))
