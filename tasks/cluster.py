"""The Dask cluster of one run: one worker process per model replica and per parameter shard."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.machinery import ModuleSpec
from typing import Any, TypeVar

import dask
from distributed import Client, Scheduler, SpecCluster
from distributed.security import Security

from engine.config import LOOPBACK, ClusterConfig
from engine.instructions import RunFailedError
from engine.tls import check_files
from tasks.fork_server import start_fork_server
from tasks.nanny import WatchfulNanny
from tasks.pipe_queue import replace_queues

Item = TypeVar("Item")
Result = TypeVar("Result")
ParallelMap = Callable[[Callable[[Item], Result], Sequence[Item]], Iterable[Result]]

# Replicas and shards are long tasks that own state: nothing may move, spill, pause or kill them
# but the engine, which has heartbeats of its own.
SETTINGS = {
    "distributed.scheduler.allowed-failures": 1000,
    "distributed.scheduler.work-stealing": False,
    "distributed.scheduler.worker-ttl": None,
    # Dask looks this long after a worker's death whether it is there, and gives up its nanny for
    # good if not: because it has died again just then, or a busy machine is slow to start it.
    "distributed.deploy.lost-worker-timeout": "10000 days",
    "distributed.scheduler.active-memory-manager.start": False,
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    "distributed.worker.profile.enabled": False,
    "distributed.worker.multiprocessing-method": "forkserver",
    # An idle worker spends 1.3 % of a core on looking at itself 50 times a second; 0.2 % this way.
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
    # Dask makes malloc hand back every 64 kB at once. A network allocates and frees the same
    # activations at each step: 970 images/s that way, 1,440 when freed memory is kept (VGG-A at a
    # quarter of the width, one thread).
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 2**30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 2**30,
    "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
    # Large pages under activations and gradients: a mini-batch of VGG-A costs 304 ms, not 319. And
    # a vector of 4 MiB or more is copied past the caches: 2.9 ms a fetch of 37.7 MB, not 5.5.
    "distributed.nanny.pre-spawn-environ.GLIBC_TUNABLES": (
        "glibc.malloc.hugetlb=1:glibc.cpu.x86_non_temporal_threshold=0x400000"
    ),
}


@contextmanager
def open_cluster(config: ClusterConfig, *, with_shards: bool = True) -> Iterator[Client]:
    """Start the workers of a run, yield a client once all of them answer, then close everything.

    The worker of replica 0 has one unit of the resource `replica-0`, that of shard 1 of `shard-1`,
    and so on; each has one task thread. The numbers matter: Dask would queue the task of a killed
    worker behind the endless task of another one that offers the same resource. Every port is on
    `config.host`. To be entered in the main thread, where signals arrive, so that a cancelled run
    still closes its processes.

    Args:
        with_shards: False for algorithms that have no parameter shards.

    Raises:
        TimeoutError: a worker did not come up within `start_timeout_s`.
        RunFailedError: a worker's process was killed again and again while it started.
    """
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(SETTINGS))
        stack.enter_context(_dask_quiet())
        stack.enter_context(_environment_restored())
        stack.enter_context(_main_module_hidden())
        variables = dict(os.environ)
        start_fork_server(environment_at_start())
        replace_queues()
        cluster = stack.enter_context(_started(config, _workers(config, with_shards, variables)))
        client = stack.enter_context(_client(cluster))
        client.wait_for_workers(len(cluster.worker_spec), timeout=config.start_timeout_s)
        yield client


@contextmanager
def workers_on_demand(config: ClusterConfig) -> Iterator[ParallelMap[Any, Any]]:
    """Yield a parallel map, results in order; workers are started at the first work for two."""
    with ExitStack() as stack:
        clients: list[Client] = []

        def run_parallel(
            function: Callable[[Item], Result], items: Sequence[Item]
        ) -> Iterator[Result]:
            if len(items) < 2:
                yield from map(function, items)
                return
            if not clients:
                clients.append(stack.enter_context(open_cluster(config)))
            futures = clients[0].map(function, items, pure=False)
            for future in futures:
                yield future.result()

        yield run_parallel


def threads_per_replica(config: ClusterConfig) -> int:
    """Torch threads of one replica: as configured, or an equal share of the cores."""
    cores = len(os.sched_getaffinity(0))
    return config.threads_per_replica or max(1, cores // config.num_replicas)


def _started(config: ClusterConfig, workers: dict[str, dict[str, Any]]) -> SpecCluster:
    try:
        return SpecCluster(  # type: ignore[no-untyped-call]
            scheduler=_scheduler(config), workers=workers, security=_security(config)
        )
    except RuntimeError as error:  # "WatchfulNanny failed to start.", and why as its cause
        raise RunFailedError(str(error.__cause__ or error)) from error


def _client(cluster: SpecCluster) -> Client:
    client: Client = Client(cluster, set_as_default=False)  # type: ignore[no-untyped-call]
    return client


def _scheduler(config: ClusterConfig) -> dict[str, Any]:
    options = {
        "host": config.host,
        "port": 0,
        "dashboard": True,
        "dashboard_address": f"{_loopback(config)}:{config.dashboard_port}",
        **_encryption(config),
    }
    return {"cls": Scheduler, "options": options}


def environment_at_start() -> dict[str, str]:
    """Variables that count when a worker's program begins: malloc's."""
    prefix = "distributed.nanny.pre-spawn-environ."
    return {
        name.removeprefix(prefix): str(value)
        for name, value in SETTINGS.items()
        if name.startswith(prefix)
    }


def _workers(
    config: ClusterConfig, with_shards: bool, variables: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Specifications of all workers, which have this process's environment `variables`."""
    replicas = {
        f"replica-{i}": _worker(config, f"replica-{i}", threads_per_replica(config), variables)
        for i in range(config.num_replicas)
    }
    num_shards = config.num_shards if with_shards else 0
    shards = {f"shard-{i}": _worker(config, f"shard-{i}", 1, variables) for i in range(num_shards)}
    return replicas | shards


def _worker(
    config: ClusterConfig, resource: str, num_threads: int, variables: Mapping[str, str]
) -> dict[str, Any]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(num_threads))
    options = {
        "host": config.host,
        "nthreads": 1,
        "dashboard_address": f"{_loopback(config)}:0",
        **_encryption(config),
        "memory_limit": None,
        "resources": {resource: 1},
        # The fork server's are of when it was started.
        "env": {**variables, **threads},
        "death_timeout": config.start_timeout_s,
        "preload": ["tasks.worker_start"],
        "silence_logs": logging.CRITICAL,  # a task's exception is reported where it is awaited
    }
    return {"cls": WatchfulNanny, "options": options}


def _loopback(config: ClusterConfig) -> str:
    """Where Dask's pages are served: they know neither TLS nor passwords."""
    return config.host if config.host in LOOPBACK else "127.0.0.1"


def _encryption(config: ClusterConfig) -> dict[str, Any]:
    """Options of a scheduler or worker; Dask's other connections are plain."""
    return {"protocol": "tls", "security": _security(config)} if config.tls else {}


def _security(config: ClusterConfig) -> Security | None:
    """Whoever wants to talk to Dask must show a certificate of our CA."""
    if config.tls is None:
        return None
    check_files(config.tls)
    certificate, key = str(config.tls.certificate_file), str(config.tls.key_file)
    files = {f"tls_{role}_cert": certificate for role in ("client", "scheduler", "worker")}
    files |= {f"tls_{role}_key": key for role in ("client", "scheduler", "worker")}
    return Security(  # type: ignore[no-untyped-call]
        tls_ca_file=str(config.tls.ca_file), require_encryption=True, **files
    )


@contextmanager
def _dask_quiet() -> Iterator[None]:
    """Let Dask report errors only: what befalls a replica or shard is told by the engine."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _environment_restored() -> Iterator[None]:
    """Undo what Nannies write into our own environment: torch, imported later, would obey it."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep spawned workers from importing the caller's main module.

    A worker would otherwise import what `python -m flows.pipeline` imports, Prefect first: seconds
    of every core, again at each restart. multiprocessing leaves a package's `__main__` alone.
    """
    main = sys.modules["__main__"]
    spec, main.__spec__ = main.__spec__, ModuleSpec("caller.__main__", None)
    try:
        yield
    finally:
        main.__spec__ = spec
