"""A run whose roles are real processes without Dask: forked in milliseconds, killed, started anew.

The coordinator is in the caller's process. A role may be told to stop itself (SIGSTOP) at a point
of its work; the test sees it stopped there, and then kills it, replaces it or lets it go on.
"""

import multiprocessing
import os
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import torch

from engine import checkpoint, gate, log_recovery, shard, shard_start, state
from engine.config import ClusterConfig, DownpourConfig
from engine.endpoint import ShardEndpoint
from engine.events import Listener
from engine.gate import Gate
from engine.link import RemoteServer
from engine.mortal_shard import half_done
from engine.push_log import PushLog
from engine.replica_role import run_replica
from engine.rules import UpdateRule
from engine.rules.rule import Update
from engine.run_spec import RunSpec
from engine.shard_role import serve_shard
from tests.engine.fuses import slow
from tests.engine.threaded import ThreadedRun
from tests.kills import process_state, real_kill

#: Small, so that a shard of the classifier has several.
BLOCK = 8
_WAIT_S = 30.0
#: Where a role may stop: an owner and the name of what it calls there.
POINTS = {
    "recovery": (shard.ParameterShard, "finish_interrupted"),
    "acknowledgement": (ShardEndpoint, "copy"),  # the push is applied, the answer not yet sent
    "hold": (Gate, "close"),  # the other shard holds pushes back already
    "cut": (Gate, "wait_for_cut"),  # pushes are held for a snapshot
    "snapshot": (checkpoint, "write_shard"),
    "rotation": (PushLog, "rotate"),
    "repetition": (log_recovery, "repeat"),  # the log is being read
    "push": (RemoteServer, "exchange"),
}


class Stop(NamedTuple):
    """Stop when something is done for the `number`-th time: one of POINTS, or "block"."""

    point: str
    number: int


def shard_process(
    spec: RunSpec, index: int, config: DownpourConfig, stop: Stop | None, small_blocks: bool
) -> None:
    """What a shard's process does."""
    _let_go_of_sockets()
    torch.set_num_threads(1)
    if small_blocks:
        state.BLOCK = BLOCK
    if stop:
        _arm(stop)
    gate.HOLD_S = 10 * _WAIT_S  # nobody is saved by giving up
    serve_shard(spec, index, config.rule, config.max_staleness, "process")


def replica_process(
    spec: RunSpec, index: int, config: DownpourConfig, stop: Stop | None, small_blocks: bool
) -> None:
    """What a replica's process does; its gradients take long enough for a test to interfere."""
    _let_go_of_sockets()
    torch.set_num_threads(1)
    if stop:
        _arm(stop)
    run_replica(spec, index, lambda: slow(pause_s=0.002), config, "process")


def _let_go_of_sockets() -> None:
    """Those of a coordinator that forked us would stay open after its death, and nobody notice."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/proc/self/fd")):
        with suppress(OSError):  # the descriptor of the list itself
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                os.dup2(nothing, number)  # its Python object may close it once more
    os.close(nothing)


def _arm(stop: Stop) -> None:
    if stop.point == "block":
        make_rule = shard_start.make_rule
        shard_start.make_rule = lambda config: _HalfBlock(make_rule(config), stop.number)
        return
    owner, name = POINTS[stop.point]
    setattr(owner, name, _stopping(getattr(owner, name), stop.number))


def _stopping(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    calls = 0

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            signal.raise_signal(signal.SIGSTOP)
        return function(*arguments, **named)

    return counted


class _HalfBlock:
    """A rule that stops its process when the `number`-th block is half done."""

    def __init__(self, rule: UpdateRule, number: int) -> None:
        self.slots, self.compile = rule.slots, rule.compile
        self._rule, self._left = rule, number

    def update(self, dtype, scale, step) -> Update:
        whole = self._rule.update(dtype, scale, step)

        def update(vectors, grad, undo, marks, size, end, first, last) -> None:
            for block in range(first, last):
                self._left -= 1
                if self._left:
                    whole(vectors, grad, undo, marks, size, end, block, block + 1)
                    continue
                done, stop = vectors.copy(), min(block * size + size, end)
                half_done(whole, vectors, grad, undo, size, end, block)
                signal.raise_signal(signal.SIGSTOP)
                whole(done, grad, undo, marks, size, end, block, block + 1)
                second_half = slice((block * size + stop) // 2, stop)
                vectors[:, second_half] = done[:, second_half]

        return update


class ProcessRun:
    """Starts the roles of a run, and starts them anew when they die, as a nanny does."""

    def __init__(self, run: ThreadedRun, context: str, small_blocks: bool) -> None:
        self.run = run
        self._small_blocks = small_blocks
        self._context: Any = multiprocessing.get_context(context)
        if context == "forkserver":
            self._context.set_forkserver_preload([__name__])
        self._processes: dict[tuple[str, int], BaseProcess] = {}  # the newest of each role
        self._all: list[BaseProcess] = []
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._restart_dead, daemon=True)
        self._lock = threading.Lock()
        #: Role and index -> where the next processes of that role shall stop, one after another.
        self.stops: dict[tuple[str, int], list[Stop]] = {}
        #: Role and index -> where its processes find the coordinator, if not where it is.
        self.coordinators: dict[tuple[str, int], tuple[str, int]] = {}

    def start_all(self) -> None:
        """Every shard and every replica; from now on dead ones are replaced."""
        cluster = self.run.cluster
        for role, count in (("shard", cluster.num_shards), ("replica", cluster.num_replicas)):
            for index in range(count):
                self.start(role, index)
        self._watch.start()

    def start(self, role: str, index: int) -> BaseProcess:
        """A process for this role, whether or not there is one already."""
        with self._lock:
            stops = self.stops.get((role, index), [])
            stop = stops.pop(0) if stops else None
            target = shard_process if role == "shard" else replica_process
            coordinator = self.coordinators.get((role, index), self.run.spec.coordinator)
            spec = replace(self.run.spec, coordinator=coordinator)
            arguments = (spec, index, self.run.config, stop, self._small_blocks)
            process = self._context.Process(target=target, args=arguments, daemon=True)
            process.start()
            self._processes[role, index] = process
            self._all.append(process)
            return process

    def of(self, role: str, index: int) -> BaseProcess:
        """The newest process of a role."""
        return self._processes[role, index]

    def stopped(self, role: str, index: int) -> BaseProcess:
        """The newest process of a role, once it is stopped."""
        deadline = time.monotonic() + _WAIT_S
        while process_state((process := self.of(role, index)).pid) != "T":
            assert time.monotonic() < deadline, f"{role} {index} did not stop"
            time.sleep(0.002)
        return process

    def kill_stopped(self, role: str, index: int) -> None:
        """Kill the newest process of a role when it has stopped where it was told to."""
        real_kill(self.stopped(role, index).pid, role)

    def drive_beside(self, meddle: Callable[[], None]) -> checkpoint.Checkpoint:
        """Train to the end while `meddle` interferes in a thread of its own."""
        errors: list[BaseException] = []

        def guarded() -> None:
            try:
                meddle()
            except BaseException as error:
                errors.append(error)

        def check() -> None:
            if errors:
                raise errors[0]

        meddling = threading.Thread(target=guarded, daemon=True)
        meddling.start()
        final = self.run.training.drive(check)
        meddling.join(_WAIT_S)
        check()
        assert not meddling.is_alive(), "the run ended before it was interfered with"
        assert final is not None
        return final

    def close(self) -> None:
        """End the run; every process has to end by itself, or to have been killed."""
        self._over.set()
        self._watch.join()
        for process in self._all:
            if process_state(process.pid) != "T":
                process.join(_WAIT_S)
            if process.exitcode is None:
                process.kill()
                process.join()

    def _restart_dead(self) -> None:
        while not self._over.wait(0.01):
            for (role, index), process in list(self._processes.items()):
                code = self._polled(process)
                if code is not None and code < 0:
                    self.run.training.ended(role, index, process.pid, code)
                    self.start(role, index)

    def exit_code(self, process: BaseProcess) -> int | None:
        """How a process that is dead or dying ended."""
        deadline = time.monotonic() + _WAIT_S
        while (code := self._polled(process)) is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return code

    def _polled(self, process: BaseProcess) -> int | None:
        with self._lock:  # of two threads that ask at once, one would be told 255
            return process.exitcode


@contextmanager
def process_run(
    folder: Path,
    config: DownpourConfig,
    listen: Listener,
    *,
    num_replicas: int = 2,
    num_shards: int = 2,
    heartbeat_timeout_s: float = 600.0,
    context: str = "forkserver",
    salvaging: bool = False,
    allow_resharding: bool = False,
) -> Iterator[ProcessRun]:
    """A run whose processes have not started yet."""
    cluster = ClusterConfig(
        num_replicas=num_replicas,
        num_shards=num_shards,
        allow_resharding=allow_resharding,
        heartbeat_interval_s=0.2,
        heartbeat_timeout_s=heartbeat_timeout_s,
    )
    run = ThreadedRun(folder, config, cluster, listen, salvaging=salvaging)
    # Whoever salvages does so in a process of its own, with blocks as they are.
    processes = ProcessRun(run, context, small_blocks=not salvaging)
    try:
        yield processes
    finally:
        run.close()
        processes.close()
