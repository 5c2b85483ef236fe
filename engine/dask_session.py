"""A run on Dask workers: its roles as long tasks, the coordinator's sockets, the shared memory.

A session lives as long as the run, over all of its phases, and so do its parameter shards with
everything they hold. Whatever ends it, the roles are told to stop and the memory is freed, once a
run that gives up has written the checkpoint that it owes.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import distributed
import torch

from engine import journal, memory
from engine.config import ClusterConfig, RuleConfig
from engine.coordinator_server import CoordinatorServer
from engine.instructions import RunFailedError
from engine.losses import in_words
from engine.predecessors import await_survivors
from engine.push import FencedShardError
from engine.roles import Ending, await_end, endings_heard, raise_errors
from engine.run_memory import run_memory
from engine.run_spec import RunSpec
from engine.salvage import salvage
from engine.seats import Seats
from engine.shard_role import serve_shard

log = logging.getLogger(__name__)
Result = TypeVar("Result")
#: The word of the parent of a process that has just ended comes within this time.
_TELLING_S = 0.5


class Session:
    """The processes of one run, and what outlives a phase of it."""

    def __init__(self, client: distributed.Client, cluster: ClusterConfig) -> None:
        """Wait for what dead runs of this host owe, and listen for roles; none is started yet.

        Args:
            client: of a cluster whose workers offer the resources "replica-0", "shard-0" and so
                on, one each.
        """
        self.cluster = cluster
        await_survivors()
        self.server = CoordinatorServer(cluster.host, cluster.tls)
        self._memory = ExitStack()
        self.memory = self._memory.enter_context(run_memory(self.server.token))
        self.seats = Seats(cluster.num_replicas, cluster.num_shards)
        self._client = client
        self._roles: list[distributed.Future[None]] = []
        self._epoch = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._tell_shards({"op": "stop"})
                await_end(self._roles, self.server)
        finally:
            self.server.close()
            if isinstance(error, RunFailedError):
                self._keep_acknowledged()
            self._memory.close()

    def begin_phase(
        self,
        size: int,
        dtype: torch.dtype,
        slices: tuple[slice, ...],
        checkpoints: Path,
        record: Path | None = None,
    ) -> RunSpec:
        """What the roles of the next phase know; shards that serve already learn what is new.

        Args:
            size: number of parameters, as `slices` the same in all phases.
        """
        self.server.phase += 1
        self.seats.next_phase(time.monotonic())
        journal.discard(self.memory)
        for path in self.memory.glob("replica-*"):  # their lives have ended
            memory.remove(path)
        self._tell_shards({"op": "phase", "checkpoints": str(checkpoints)})
        return RunSpec(
            coordinator=self.server.address,
            token=self.server.token,
            host=self.cluster.host,
            memory=self.memory,
            checkpoints=checkpoints,
            size=size,
            dtype=dtype,
            slices=slices,
            heartbeat_interval_s=self.cluster.heartbeat_interval_s,
            phase=self.server.phase,
            tls=self.cluster.tls,
            record=record,
        )

    def next_epoch(self, before: int) -> int:
        """A number for a Sandblaster coordinator, above all in this session and above `before`."""
        self._epoch = max(self._epoch, before) + 1
        return self._epoch

    def start_shards(
        self, run: RunSpec, rule: RuleConfig, bound: int | None, max_norm: float | None = None
    ) -> None:
        """Start all shards unless they have been; bounds on a push's staleness and norm."""
        if run.phase > 1:
            return
        for index in range(len(run.slices)):
            self.start(f"shard-{index}", shard_task, run, index, rule, bound, max_norm)

    def start(self, role: str, task: Callable[..., None], *arguments: object) -> None:
        """One long task a role. Dask runs it again when its worker has died and come back.

        Args:
            role: name of the resource of the worker to run it on.

        Raises:
            TypeError: the arguments, of which the problem's factory is the user's, have no pickle.
        """
        key = f"{role}-{self.server.token[:8]}_{self.server.phase}"
        try:
            future = self._client.submit(task, *arguments, key=key, resources={role: 1}, pure=False)
        except TypeError as error:
            if error.__cause__ is None:
                raise
            raise TypeError(
                f"{role}: the problem's factory cannot be sent to Dask's workers: "
                f"{error.__cause__}: have it open or build that itself, in each process"
            ) from error
        self._roles.append(future)

    def ask_replica(self, function: Callable[..., Result], *arguments: object) -> Result:
        """What a function returns on the first replica's worker, while no replica runs there."""
        resources = {"replica-0": 1}
        answer: Result = self._client.submit(
            function, *arguments, resources=resources, pure=False
        ).result()
        return answer

    def check_roles(self) -> None:
        """Raise the error of a role that ended with one."""
        raise_errors(self._roles)

    def endings_told(
        self, ended: Callable[[str, int, int, int, int], None]
    ) -> AbstractContextManager[None]:
        """While the block lasts, call `ended`, in Dask's thread, when a worker's process has ended.

        Args:
            ended: takes role, index, process, exit code and kills for want of memory.
        """

        def hear(ending: Ending) -> None:
            role, _, index = ending.resource.partition("-")
            ended(role, int(index), ending.pid, ending.code, ending.oom_kills)

        return endings_heard(self._client, hear)

    @contextmanager
    def endings_added(self) -> Iterator[None]:
        """Let a RunFailedError from the block say how the workers' processes ended."""
        endings: list[Ending] = []
        with endings_heard(self._client, endings.append):
            try:
                yield
            except RunFailedError as error:
                time.sleep(_TELLING_S)
                told = [
                    f"{e.resource}: process {e.pid} {in_words(e.code, e.oom_kills)}"
                    for e in endings
                ]
                raise RunFailedError("\n  ".join([str(error), *told])) from error

    def _keep_acknowledged(self) -> None:
        """Have the run go on, when it is called again, with all that was acknowledged."""
        try:
            salvage(self.memory)
        except (OSError, FencedShardError) as error:
            log.warning("%s: no last checkpoint: %s", self.memory, error)

    def _tell_shards(self, message: dict[str, object]) -> None:
        for peer in self.seats.shard_peers:
            self.server.send(peer, message)


def shard_task(
    run: RunSpec, index: int, rule: RuleConfig, bound: int | None, max_norm: float | None
) -> None:
    """`serve_shard` as a Dask task."""
    serve_shard(run, index, rule, bound, distributed.get_worker().address, max_norm)
