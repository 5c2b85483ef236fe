"""The long-running role of a parameter shard, as a function of a plain specification.

It connects to the coordinator, does what it is told, and returns when the run stops. When its
process dies, calling it again on the same host takes over the memory it left.
"""

import logging
import threading
from dataclasses import replace
from pathlib import Path

from engine.config import RuleConfig
from engine.coordinator_link import CoordinatorLink
from engine.endpoint import ShardEndpoint
from engine.frames import Message
from engine.ownership import Ownership
from engine.push_log import PushLog
from engine.run_spec import RunSpec
from engine.sandblaster.vectors import ShardVectors
from engine.shard_start import open_log, take_over
from engine.shard_writing import keep_vectors, write_checkpoint, write_snapshot

log = logging.getLogger(__name__)


def serve_shard(
    run: RunSpec,
    index: int,
    rule: RuleConfig,
    bound: int | None,
    worker: str,
    max_norm: float | None = None,
) -> None:
    """Serve one parameter shard until the coordinator stops or disappears.

    Args:
        bound: refuse pushes staler than so many updates; None: none.
        max_norm: refuse pushes whose slice has a larger norm; None: none.
        worker: address of the Dask worker that this runs on, for the coordinator's records.
    """
    link = CoordinatorLink(
        run.coordinator, run.token, "shard", index, worker, run.heartbeat_interval_s, run.tls
    )
    endpoint: ShardEndpoint | None = None
    pushes: PushLog | None = None
    ownership: Ownership | None = None
    try:
        assign = link.receive()
        if assign["op"] != "assign":  # the run ended while we were starting
            return
        run = _in_phase(run, Path(assign["checkpoint"]).parent)
        epoch = int(assign["epoch"])
        ownership = Ownership(run.memory, index, epoch)
        pushes = open_log(run, index, link, epoch)
        shard, vectors, place, restored_from = take_over(
            run, index, rule, bound, max_norm, assign, pushes
        )
        endpoint = ShardEndpoint(
            index, shard, place, run.host, run.token, run.memory, vectors, pushes, run.tls
        )
        host, port = endpoint.address
        version = shard.version
        link.send("serving", host=host, port=port, version=version, restored_from=restored_from)
        while (command := link.receive())["op"] != "stop":
            if command["op"] == "phase":
                run = _in_phase(run, Path(command["checkpoints"]))
            else:
                _obey(run, index, endpoint, vectors, link, command)
    except OSError as error:
        if pushes and pushes.error:  # it has hung up, so that we come here
            raise pushes.error from None
        if not isinstance(error, ConnectionError):
            raise
        log.warning("shard %d: the coordinator is gone: %s", index, error)
    finally:
        link.close()
        if endpoint:
            endpoint.close()
            with endpoint.lock:
                endpoint.shard.retire()
        if pushes:
            pushes.close()
        if ownership:
            ownership.release()


def _in_phase(run: RunSpec, checkpoints: Path) -> RunSpec:
    """`run` in the phase whose checkpoints lie in that folder: every phase has its own."""
    return replace(run, checkpoints=checkpoints)


def _obey(
    run: RunSpec,
    index: int,
    endpoint: ShardEndpoint,
    vectors: ShardVectors,
    link: CoordinatorLink,
    command: Message,
) -> None:
    match command["op"]:
        case "fence":
            replica, incarnation = int(command["replica"]), int(command["incarnation"])
            with endpoint.lock:
                progress = endpoint.shard.fence(replica, incarnation)
                endpoint.gate.end((replica, incarnation))
            if endpoint.log:
                endpoint.log.wait(endpoint.log.written)
            link.send("fenced", replica=replica, incarnation=incarnation, progress=progress)
        case "snapshot":
            with endpoint.lock:
                handled = endpoint.gate.close()
            link.send("held", id=command["id"], sequences=[(*h, s) for h, s in handled.items()])
        case "committed" if endpoint.log:
            endpoint.log.forget(int(command["version"]))
        case "release":
            with endpoint.lock:
                endpoint.gate.open()
        case "cut":  # in a thread of its own: fences must be obeyed meanwhile
            threading.Thread(
                target=write_snapshot, args=(run, index, endpoint, link, command), daemon=True
            ).start()
        case "keep":  # commands do not wait for the disk
            arguments = (index, vectors, link, command)
            threading.Thread(target=keep_vectors, args=arguments, daemon=True).start()
        case "commands" | "restore" | "forget":
            with endpoint.lock:
                endpoint.preserve()  # the parameters are one of the vectors
                reply = vectors.answer(command)
            link.send(**reply)
        case "checkpoint":
            write_checkpoint(run, index, endpoint, link, command)
