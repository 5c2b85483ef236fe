"""The long-running role of a parameter shard, as a function of a plain specification.

It connects to the coordinator, does what it is told, and returns when the run stops. When its
process dies, calling it again on the same host takes over the memory it left.
"""

import logging
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from engine import checkpoint, memory
from engine.config import RuleConfig
from engine.coordinator_link import CoordinatorLink
from engine.endpoint import Place, ShardEndpoint
from engine.frames import Message
from engine.log_file import read_files
from engine.log_recovery import restore
from engine.ownership import Ownership
from engine.push_log import LogFailedError, PushLog
from engine.record import Recorder
from engine.rules import UpdateRule, make_rule
from engine.run_spec import RunSpec, log_folder
from engine.sandblaster.vectors import ShardVectors
from engine.segment import gradient_at
from engine.shard import FencedShardError, ParameterShard
from engine.state import Location, ShardState

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
        pushes = _open_log(run, index, link, epoch)
        shard, vectors, place, restored_from = _take_over(
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


def _open_log(run: RunSpec, index: int, link: CoordinatorLink, epoch: int) -> PushLog | None:
    """The log of pushes, owned by us from now on; None with durability=process."""
    if run.log is None:
        return None

    def ask_for_checkpoint() -> None:
        with suppress(OSError):
            link.send("log_long")

    return PushLog(
        log_folder(run.log, index),
        epoch,
        run.log_bytes,
        on_failure=link.close,
        on_long=ask_for_checkpoint,
    )


def _in_phase(run: RunSpec, checkpoints: Path) -> RunSpec:
    """`run` in the phase whose checkpoints lie in that folder: every phase has its own."""
    return replace(run, checkpoints=checkpoints)


def _take_over(
    run: RunSpec,
    index: int,
    rule_config: RuleConfig,
    bound: int | None,
    max_norm: float | None,
    assign: Message,
    pushes: PushLog | None,
) -> tuple[ParameterShard, ShardVectors, Place, str]:
    """The shard as its last owner left it in memory, or as the checkpoint has it."""
    rule = make_rule(rule_config)
    part = run.slices[index]
    path = run.memory / f"shard-{index:02d}.state"
    place = Place(part.start, part.stop - part.start, run.size, run.dtype)
    num_bytes = ShardState.num_bytes(place.count, len(rule.slots), run.dtype)
    opener = memory.open_existing if path.exists() else memory.create
    state = ShardState(opener(path, num_bytes), place.count, len(rule.slots), run.dtype)
    epoch, source = int(assign["epoch"]), Path(assign["checkpoint"])
    record = Recorder(run.record / f"shard-{index:02d}.jsonl").push if run.record else None
    restored_from = "memory"
    if not state["ready"]:
        restored_from = _restore(run, index, state, rule, epoch, source)
    shard = ParameterShard(state, rule, epoch, bound, record, log=pushes, max_norm=max_norm)

    def grad_at(location: Location) -> Tensor:
        return gradient_at(location, place.count, run.dtype)

    if shard.finish_interrupted(grad_at):
        restored_from = "memory, after finishing an interrupted push"
    if pushes and run.log:
        earlier = read_files(log_folder(run.log, index))
        pushes.begin(shard.version, shard.table(), earlier, shard.unlogged(grad_at))
        shard.mark_logged()
    for inbox in run.memory.glob(f"inbox-{index:02d}-*"):  # of dead owners; needed until here
        inbox.unlink()
    vectors = ShardVectors(run.memory, index, place, state.values)
    return shard, vectors, place, restored_from


def _restore(
    run: RunSpec, index: int, state: ShardState, rule: UpdateRule, epoch: int, checkpoint_: Path
) -> str:
    """Fill a new state from the newest checkpoint and the log, if there is one."""
    source = checkpoint.read(checkpoint_)
    if run.log is None:
        written = source.read_shard(index)
        slots = [written[name] for name in rule.slots]
        state.fill(written["values"], slots, source.shards[index].version)
        return "checkpoint"
    folder = log_folder(run.log, index)
    shard = ParameterShard(state, rule, epoch)
    count = restore(state, shard, rule, index, source, folder)
    state["owner_epoch"] = epoch - 1  # whoever serves it takes over from us
    return f"checkpoint and {count} pushes of the log" if count else "checkpoint"


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
                target=_snapshot, args=(run, index, endpoint, link, command), daemon=True
            ).start()
        case "keep":  # commands do not wait for the disk
            arguments = (index, vectors, link, command)
            threading.Thread(target=_keep, args=arguments, daemon=True).start()
        case "commands" | "restore" | "forget":
            with endpoint.lock:
                endpoint.preserve()  # the parameters are one of the vectors
                reply = vectors.answer(command)
            link.send(**reply)
        case "checkpoint":
            _checkpoint(run, index, endpoint, link, command)


def _snapshot(
    run: RunSpec, index: int, endpoint: ShardEndpoint, link: CoordinatorLink, command: Message
) -> None:
    id = int(command["id"])
    cut = {(int(r), int(i)): int(s) for r, i, s in command["sequences"]}
    began = time.monotonic()
    try:
        with endpoint.lock:  # pushes wait for a copy in memory, not for the disk
            if not endpoint.gate.wait_for_cut(cut):
                link.send("snapshot_failed", id=id, message="pushes were held for too long")
                return
            values, slots, version = endpoint.shard.copy()
            progress = [(*h, *reached) for h, reached in endpoint.shard.progress().items()]
            if endpoint.log:
                endpoint.log.rotate(version, endpoint.shard.table())
            endpoint.gate.open()
        copied = time.monotonic()
        folder = checkpoint.partial_folder(run.checkpoints, id)
        try:
            digests = checkpoint.write_shard(folder, index, {"values": values, **slots})
        except OSError as error:
            link.send("snapshot_failed", id=id, message=str(error))
            return
        link.send(
            "snapshotted",
            id=id,
            version=version,
            digests=digests,
            progress=progress,
            held_s=copied - began,
            wrote_s=time.monotonic() - copied,
        )
    except (
        OSError,
        FencedShardError,
        LogFailedError,
    ) as error:
        # The coordinator is gone, or does without us, or is about to be told.
        log.info("shard %d: snapshot %d was not taken: %s", index, id, error)


def _keep(index: int, vectors: ShardVectors, link: CoordinatorLink, command: Message) -> None:
    answer = vectors.keep(Path(command["folder"]), command["names"])
    try:
        link.send("kept", keeping=command["keeping"], **answer)
    except OSError as error:
        log.info("shard %d: nobody to tell that vectors are kept: %s", index, error)


def _checkpoint(
    run: RunSpec, index: int, endpoint: ShardEndpoint, link: CoordinatorLink, command: Message
) -> None:
    """For Sandblaster, whose parameters nobody pushes to: write them as they are."""
    with endpoint.lock:
        values, slots, version = endpoint.shard.copy()
    folder = checkpoint.partial_folder(run.checkpoints, int(command["id"]))
    answer: Message = {"request": command["request"], "version": version}
    try:
        answer["digests"] = checkpoint.write_shard(folder, index, {"values": values, **slots})
    except OSError as error:
        answer["failed"] = str(error)
    link.send("answered", **answer)
