"""What a run leaves in memory when its coordinator dies, made into the checkpoint it still owed.

Coordinator, scheduler and flow are one process; when that is killed, every role ends, but the
shards' memory files stay. Beside them lie the terms of the run and a journal of its leases.
Together they say which samples the shards' states contain. Whichever run starts next on this host,
of whatever, writes that checkpoint before it frees the memory: so the same command goes on with
every acknowledged update, not only with those of the last checkpoint.
"""

import fcntl
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine import checkpoint, memory
from engine.checkpoint import Checkpoint, CheckpointError, ShardFile
from engine.journal import TERMS, Terms, read_leases, read_terms
from engine.ledger import Holder, Progress, Range, applied_ranges
from engine.ownership import Ownership
from engine.rules import make_rule
from engine.segment import gradient_at
from engine.shard import FencedShardError, ParameterShard
from engine.state import ShardState

log = logging.getLogger(__name__)
#: A shard whose coordinator is gone ends by itself, unless it is stopped.
_ORPHANS_S = 1.0
#: Nobody owns the memory after us.
_LAST_EPOCH = 2**62


def salvage_all() -> list[Checkpoint]:
    """Write what the dead runs of this host owe, free their memory; return what was written.

    A run whose checkpoint the disk refuses keeps its memory, for a later start to try again.
    """
    written = []
    for folder in memory.left_over():
        with _alone(folder):
            try:
                if made := salvage(folder):
                    written.append(made)
            except OSError as error:
                log.warning("%s is kept, since its checkpoint cannot be written: %s", folder, error)
                continue
            shutil.rmtree(folder, ignore_errors=True)
    return written


def salvage(folder: Path) -> Checkpoint | None:
    """Write the checkpoint that the run of this memory folder owes; None if it owes nothing.

    Raises:
        OSError: the checkpoint cannot be written.
    """
    terms = read_terms(folder)
    if terms is None or not Path(terms.checkpoints).is_dir():
        return None
    try:
        shards = [_take_over(folder, terms, index) for index in range(len(terms.slices))]
        owed = _counted(folder, terms, shards)
        num_kept = _num_kept(terms)
    except (OSError, FencedShardError, ValueError) as error:
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
    if terms.num_replicas == 1 and any(table != tables[0] for table in tables):
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
    newest = max(file.version for file in files)
    return checkpoint.commit(
        checkpoints,
        id,
        identity=terms.identity,
        shards=files,
        counted=counted,
        num_steps=terms.num_steps + (newest - terms.version) * terms.n_push,
        elapsed_s=elapsed_s,
        final=False,
        keep=terms.keep_checkpoints,
    )


def _take_over(folder: Path, terms: Terms, index: int) -> ParameterShard:
    """The shard as its dead owner left it, with the push finished that was interrupted."""
    rule, part, dtype = make_rule(terms.rule), terms.slices[index], terms.dtype
    count = part.stop - part.start
    num_bytes = ShardState.num_bytes(count, len(rule.slots), dtype)
    path = folder / f"shard-{index:02d}.state"
    state = ShardState(memory.open_existing(path, num_bytes), count, len(rule.slots), dtype)
    if not state["ready"]:
        raise ValueError(f"{path} was never served")
    Ownership(folder, index, _LAST_EPOCH, _ORPHANS_S).release()
    shard = ParameterShard(state, rule, _LAST_EPOCH)
    shard.finish_interrupted(lambda at: gradient_at(at, count, dtype))
    return shard


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Wait until no other run that starts just now is at work on the same folder."""
    try:
        file = (folder / TERMS).open("rb")
    except OSError:  # another run has just removed it, or it has no terms
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
