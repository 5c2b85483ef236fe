"""What a shard writes when it is told to, in threads of their own or while nobody pushes."""

import logging
import time
from pathlib import Path

from engine import checkpoint
from engine.coordinator_link import CoordinatorLink
from engine.endpoint import ShardEndpoint
from engine.frames import Message
from engine.push import FencedShardError
from engine.push_log import LogFailedError
from engine.run_spec import RunSpec
from engine.sandblaster.vectors import ShardVectors

log = logging.getLogger(__name__)


def write_snapshot(
    run: RunSpec, index: int, endpoint: ShardEndpoint, link: CoordinatorLink, command: Message
) -> None:
    """Wait for the cut, copy the shard, write the copy as its part of a checkpoint."""
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


def keep_vectors(
    index: int, vectors: ShardVectors, link: CoordinatorLink, command: Message
) -> None:
    answer = vectors.keep(Path(command["folder"]), command["names"])
    try:
        link.send("kept", keeping=command["keeping"], **answer)
    except OSError as error:
        log.info("shard %d: nobody to tell that vectors are kept: %s", index, error)


def write_checkpoint(
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
