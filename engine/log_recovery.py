"""A shard as a checkpoint and its log of pushes have it, when its memory is gone.

The checkpoint has the vectors. The log has the table of applied pushes, as of the beginning of each
file, and every push since: those that the checkpoint contains change the table only, the others
are applied again, in their order, to the bits that the shard had.
"""

from pathlib import Path

import torch

from engine.checkpoint import Checkpoint
from engine.log_file import Fence, LogDamagedError, LogFile, read_files
from engine.rules import UpdateRule
from engine.shard import ParameterShard
from engine.state import ShardState


def restore(
    state: ShardState,
    shard: ParameterShard,
    rule: UpdateRule,
    index: int,
    source: Checkpoint,
    folder: Path,
    last: int | None = None,
) -> int:
    """Bring a new `state`, owned by `shard`, to the end of the log; return the number of pushes.

    Args:
        source: the newest complete checkpoint of the run.
        folder: of this shard's log; an empty or missing one has nothing to add.
        last: version to stop at; None: as far as the log goes.

    Raises:
        CheckpointError: the checkpoint is damaged.
        LogDamagedError: the log does not begin where the checkpoint ends, or has a hole.
    """
    written = source.read_shard(index)
    contained = source.shards[index].version
    state.load(written["values"], [written[name] for name in rule.slots], contained)
    files = read_files(folder)
    if files:
        first = _first_needed(files, contained, folder)
        repeat(shard, files[first:], contained, state.values.dtype, last)
    if shard.version < contained:
        raise LogDamagedError(
            f"{folder}: the log ends at version {shard.version}, before that of "
            f"{source.folder}, {contained}"
        )
    shard.note_logged(shard.version)
    state["ready"] = 1
    return shard.version - contained


def repeat(
    shard: ParameterShard,
    files: list[LogFile],
    contained: int,
    dtype: torch.dtype,
    last: int | None = None,
) -> None:
    """Repeat what `files` say on a shard whose vectors contain the first `contained` pushes."""
    for position, file in enumerate(files):
        if position and shard.version != file.version:
            raise LogDamagedError(
                f"{files[position - 1].path}: torn or altered after version {shard.version}, "
                f"{file.path.name} goes on from version {file.version}"
            )
        shard.set_table(file.version, file.rows)
        following = files[position + 1].version if position + 1 < len(files) else last
        _repeat_file(shard, file, contained, dtype, following)


def _repeat_file(
    shard: ParameterShard, file: LogFile, contained: int, dtype: torch.dtype, last: int | None
) -> None:
    """A record beyond `last` was never applied: its owner died before it began, or is stopped."""
    for version, change, grad in file.records(dtype):
        if last is not None and version > last:
            return
        if isinstance(change, Fence):
            shard.fence(change.replica, change.incarnation)
        else:
            shard.repeat(change, grad if version > contained else None)


def _first_needed(files: list[LogFile], contained: int, folder: Path) -> int:
    """The last file that begins no later than the checkpoint ends."""
    candidates = [i for i, file in enumerate(files) if file.version <= contained]
    if not candidates:
        raise LogDamagedError(
            f"{folder}: the log begins at version {files[0].version}, "
            f"the newest checkpoint ends at {contained}"
        )
    return candidates[-1]
