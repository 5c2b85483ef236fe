"""The long-running role of one rank: joins the others, trains, and starts again when one is lost.

hello → begin (attempt, checkpoint), then progress* and, from rank 0, written* (at once
    when told to save), until stop
"""

import logging
import os
import threading
from pathlib import Path

import psutil
import torch.distributed as dist

from engine import checkpoint
from engine.coordinator_link import CoordinatorLink
from engine.device import device_of, take_gpu
from engine.frames import Message
from engine.instructions import RunFailedError
from engine.problem import Problem, ProblemFactory
from engine.synchronous.averaging import averager
from engine.synchronous.backend import agreed_backend
from engine.synchronous.loop import RankLoop
from engine.synchronous.spec import SynchronousSpec

log = logging.getLogger(__name__)
_VERDICT_S = 20.0
_LEAVE_S = 2.0


def run_rank(spec: SynchronousSpec, rank: int, factory: ProblemFactory, worker: str) -> None:
    """Work as one rank until the driver stops or disappears."""
    while True:
        try:
            link = CoordinatorLink(
                spec.driver,
                spec.token,
                "rank",
                rank,
                worker,
                spec.heartbeat_interval_s,
                spec.tls,
            )
        except OSError as error:
            log.warning("rank %d: the driver is gone: %s", rank, error)
            return
        take_gpu(rank)
        problem = factory()
        try:
            begin = link.receive()
            if begin["op"] == "stop":
                return
            if _attempt(spec, rank, problem, link, begin):
                return
        except ConnectionError as error:
            log.info("rank %d: the driver hung up: %s", rank, error)
        finally:
            link.close()


def _attempt(
    spec: SynchronousSpec, rank: int, problem: Problem, link: CoordinatorLink, begin: Message
) -> bool:
    """Train from a checkpoint until the driver says stop (True) or another rank is lost."""
    ended, left, save = threading.Event(), threading.Event(), threading.Event()
    stopped: list[Message] = []

    def listen() -> None:
        try:
            while (message := link.receive())["op"] == "save":
                save.set()
            stopped.append(message)
        except OSError:
            log.debug("rank %d: the driver hung up", rank)
        ended.set()
        if not left.wait(_LEAVE_S):
            log.warning("rank %d waits for a lost rank: its process ends itself", rank)
            os._exit(1)  # torch's collectives cannot be interrupted; Dask starts another one

    threading.Thread(target=listen, name="listen", daemon=True).start()
    try:
        _join(spec, rank, problem, int(begin["attempt"]))
        start = checkpoint.read(Path(begin["checkpoint"]))
        loop = RankLoop(spec, rank, problem, averager(problem), link, start, int(begin["id"]))
        loop.run(ended, save)
        ended.wait()
    except RunFailedError:  # no rank can go on
        raise
    except RuntimeError as error:
        # Whatever gloo and nccl raise when a peer is gone is a RuntimeError. The driver, which
        # notices a lost rank too, then hangs up on everybody; otherwise the error is our own.
        if not ended.wait(_VERDICT_S):
            raise
        log.info("rank %d: another rank is gone: %s", rank, error)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        left.set()
    return bool(stopped)


def _join(spec: SynchronousSpec, rank: int, problem: Problem, attempt: int) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = _interface(spec.host)
    path = str(spec.meeting / f"attempt-{attempt}")
    store = dist.FileStore(path, spec.num_ranks)  # type: ignore[attr-defined]  # so too
    backend = agreed_backend(store, rank, spec.num_ranks, device_of(problem))
    dist.init_process_group(backend, store=store, rank=rank, world_size=spec.num_ranks)


def _interface(host: str) -> str:
    """Name of the network interface that has the address `host`, so that gloo uses no other."""
    wanted = "127.0.0.1" if host == "localhost" else host
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address.partition("%")[0] == wanted for address in addresses):
            return name
    raise ValueError(f"cluster.host={host}: no network interface has this address")
