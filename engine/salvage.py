"""What a run leaves when its coordinator dies, made into the checkpoint that it still owed.

Coordinator, scheduler and flow are one process; when that is killed, every role ends, but the
run's survivor has the shards' memory open. Beside it lie the terms of the run and a journal of its
leases. Together they say which samples the shards' states contain. The survivor writes that
checkpoint before it lets the memory go: so the same command goes on with every acknowledged update,
not only with those of the last checkpoint. With durability=power the shards' logs stay on disk
whatever happens to the host, and serve where its memory is gone.
"""

import logging
import shutil
from pathlib import Path

from engine import checkpoint, memory
from engine.checkpoint import Checkpoint, CheckpointError, ShardFile, sync
from engine.journal import Terms, read_leases, read_terms
from engine.ledger import Holder, Progress, Range, applied_ranges, num_minibatches
from engine.log_recovery import restore
from engine.ownership import Ownership
from engine.rules import make_rule
from engine.run_spec import log_folder
from engine.segment import gradient_at
from engine.shard import ParameterShard
from engine.state import ShardState

log = logging.getLogger(__name__)
#: A shard whose coordinator is gone ends by itself, unless it is stopped.
_ORPHANS_S = 1.0
#: Nobody owns the memory after us.
_LAST_EPOCH = 2**62


def salvage_log(logs: Path) -> Checkpoint | None:
    """Write what the logs of a dead run still owe, and remove them; None: nothing.

    To be called after `await_survivors`: memory is as new as the logs, or newer.

    Raises:
        OSError: the checkpoint cannot be written; the logs stay.
    """
    made = salvage(logs)
    remove_logs(logs)
    return made


def remove_logs(logs: Path) -> None:
    """Remove a folder of logs, if it is there; while that lasts nobody takes it for a whole one."""
    if not logs.exists():
        return
    gone = logs.with_name(f"{logs.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    logs.rename(gone)
    sync(logs.parent)
    shutil.rmtree(gone, ignore_errors=True)


def salvage(folder: Path) -> Checkpoint | None:
    """Write the checkpoint that the run of this memory folder, or of these logs, owes.

    Returns:
        None if it owes nothing.

    Raises:
        OSError: the checkpoint cannot be written.
        FencedShardError: a shard is held by a process that cannot be ended.
    """
    terms = read_terms(folder)
    if terms is None or not Path(terms.checkpoints).is_dir():
        return None
    try:
        if not read_leases(folder)[0]:
            return None  # killed before a replica had work: perhaps no shard ever served
        shards = _shards(folder, terms)
        owed = _counted(folder, terms, shards)
        num_kept = _num_kept(terms)
    except (OSError, ValueError) as error:
        log.warning("%s: nothing can be made of it: %s", folder, error)
        return None
    if owed is None or num_kept is None or num_kept >= sum(r.stop - r.start for r in owed[0]):
        return None
    return _write(terms, shards, *owed)


def _num_kept(terms: Terms) -> int | None:
    """Samples in the newest checkpoint, 0 when all are damaged; None when somebody removed all.

    Raises:
        CheckpointMismatchError: the folder has become another run's.
    """
    try:
        newest = checkpoint.newest(Path(terms.checkpoints), terms.identity)
    except CheckpointError:
        return 0
    return newest.num_counted if newest else None


def _counted(
    folder: Path, terms: Terms, shards: list[ParameterShard]
) -> tuple[tuple[Range, ...], float] | None:
    """The samples that the shards contain, and the seconds of training that they took."""
    tables = [shard.progress() for shard in shards]
    pushed_to = [tables[k] for k in terms.shards_of[0]]
    if terms.num_replicas == 1 and any(table != pushed_to[0] for table in pushed_to):
        return None  # a push reached some shards only; the checkpoint is exact, as one replica is
    reached: dict[Holder, Progress] = {}
    for table in tables:
        for holder, progress in table.items():
            reached[holder] = max(progress, reached.get(holder, progress))
    leases, elapsed_s = read_leases(folder)
    return applied_ranges(terms.counted, leases, reached), elapsed_s


def _write(
    terms: Terms, shards: list[ParameterShard], counted: tuple[Range, ...], elapsed_s: float
) -> Checkpoint:
    checkpoints = Path(terms.checkpoints)
    id = checkpoint.next_id(checkpoints)
    files = []
    for index, shard in enumerate(shards):
        values, slots, version = shard.copy()
        partial = checkpoint.partial_folder(checkpoints, id)
        digests = checkpoint.write_shard(partial, index, {"values": values, **slots})
        files.append(ShardFile(version, digests))
    return checkpoint.commit(
        checkpoints,
        id,
        identity=terms.identity,
        shards=files,
        counted=counted,
        num_steps=num_minibatches(counted, terms.minibatch_size),
        elapsed_s=elapsed_s,
        final=False,
        keep=terms.keep_checkpoints,
    )


def _shards(folder: Path, terms: Terms) -> list[ParameterShard]:
    """All shards, from memory or from their logs."""
    indices = range(len(terms.slices))
    if not log_folder(folder, 0).exists():
        return [_take_over(folder, terms, index) for index in indices]
    source = checkpoint.newest(Path(terms.checkpoints), terms.identity)
    if source is None:
        raise ValueError(f"{folder}: there is no checkpoint that it could continue")
    shards = [_from_log(source, folder, terms, index) for index in indices]
    if terms.num_replicas > 1:
        return shards
    pushed_to = terms.shards_of[0]
    for index, surplus in zip(pushed_to, _surplus([shards[k] for k in pushed_to]), strict=True):
        if surplus:
            last = shards[index].version - surplus
            shards[index] = _from_log(source, folder, terms, index, last)
    return shards


def _from_log(
    source: Checkpoint, logs: Path, terms: Terms, index: int, last: int | None = None
) -> ParameterShard:
    """The shard as the newest checkpoint and its log have it, up to version `last`."""
    rule, part = make_rule(terms.rule), terms.slices[index]
    state = ShardState.in_memory(part.stop - part.start, len(rule.slots), terms.dtype)
    shard = ParameterShard(state, rule, epoch=1)
    restore(state, shard, rule, index, source, log_folder(logs, index), last)
    return shard


def _surplus(shards: list[ParameterShard]) -> list[int]:
    """Of one replica's pushes, how many each shard has beyond those that all of them have."""
    tables = [shard.sequences() for shard in shards]
    newest = max((holder for table in tables for holder in table), default=None)
    if newest is None:
        return [0] * len(shards)
    reached = [table.get(newest, 0) for table in tables]
    return [sequence - min(reached) for sequence in reached]


def _take_over(folder: Path, terms: Terms, index: int) -> ParameterShard:
    """The shard as its dead owner left it, with the push finished that was interrupted."""
    rule, part, dtype = make_rule(terms.rule), terms.slices[index], terms.dtype
    count = part.stop - part.start
    num_bytes = ShardState.num_bytes(count, len(rule.slots), dtype)
    path = folder / f"shard-{index:02d}.state"
    state = ShardState(memory.open_existing(path, num_bytes), count, len(rule.slots), dtype)
    if not state["ready"]:
        raise ValueError(f"{path} was never served")
    # Beyond that of whoever salvaged it before, and was killed.
    epoch = max(_LAST_EPOCH, int(state["owner_epoch"]) + 1)
    Ownership(folder, index, epoch, _ORPHANS_S).release()
    shard = ParameterShard(state, rule, epoch)
    shard.finish_interrupted(lambda at: gradient_at(at, count, dtype))
    return shard
