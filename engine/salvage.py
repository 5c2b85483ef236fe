"""What a run leaves in memory when its coordinator dies, made into the checkpoint it still owed.

Coordinator, scheduler and flow are one process; when that is killed, every role ends, but the
shards' memory files stay until the next run sweeps them. Beside them lie the terms of the run and
a journal of its leases. Together they say which samples the shards' states contain, so that the
same command goes on with every acknowledged update, not only with those of the last checkpoint.
"""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine import checkpoint, memory
from engine.checkpoint import Checkpoint, ShardFile
from engine.config import DownpourConfig
from engine.ledger import Holder, Lease, Progress, Range, applied_ranges
from engine.rules import make_rule
from engine.segment import gradient_at
from engine.shard import ParameterShard
from engine.state import ShardState

log = logging.getLogger(__name__)
_TERMS, _LEASES = "run.json", "leases.jsonl"
#: A push that makes no progress for so long has no owner any more. Orphans end sooner than that.
_STILL_S = 0.5


@dataclass(frozen=True)
class Terms:
    """What a journal continues."""

    checkpoints: str
    identity: Mapping[str, str]
    counted: Sequence[Range]  # at its beginning
    version: int  # of the shards, at its beginning
    num_steps: int
    num_replicas: int


class Journal:
    """The leases of a run, written to its memory folder before they are lent."""

    def __init__(
        self, folder: Path, start: Checkpoint, num_replicas: int, elapsed: Callable[[], float]
    ) -> None:
        terms = Terms(
            str(start.folder.parent.resolve()),
            start.identity,
            start.counted,
            max(shard.version for shard in start.shards),
            start.num_steps,
            num_replicas,
        )
        self._terms = folder / _TERMS
        self._file = (folder / _LEASES).open("wb", buffering=0)  # empty, before the terms say so
        self._terms.write_text(json.dumps(asdict(terms)))
        self._elapsed = elapsed

    def lent(self, holder: Holder, lease: Lease) -> None:
        """Note a lease; to be called before its holder learns of it."""
        row = [*holder, lease, round(self._elapsed(), 3)]
        line = (json.dumps(row) + "\n").encode()
        try:
            whole = self._file.write(line) == len(line)
        except OSError as error:
            log.warning("%s: %s", self._terms.parent, error)
            whole = False
        if not whole:  # without this lease the journal would be wrong: better none
            self._terms.unlink(missing_ok=True)

    def close(self) -> None:
        """End the journal: what the shards do from now on is not told in it."""
        self._terms.unlink(missing_ok=True)
        self._file.close()


def salvage(
    checkpoints: Path,
    identity: Mapping[str, str],
    config: DownpourConfig,
    slices: Sequence[slice],
    dtype: torch.dtype,
) -> Checkpoint | None:
    """Write the checkpoint that a dead run of this folder owed; None if it owes nothing."""
    for folder in memory.left_over():
        terms = _terms(folder)
        if terms is None or terms.checkpoints != str(checkpoints.resolve()):
            continue
        try:
            if terms.identity == dict(identity):
                return _salvage(folder, terms, checkpoints, config, slices, dtype)
        except (OSError, ValueError) as error:
            log.warning("%s: its state cannot be used: %s", folder, error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return None


def _salvage(
    folder: Path,
    terms: Terms,
    checkpoints: Path,
    config: DownpourConfig,
    slices: Sequence[slice],
    dtype: torch.dtype,
) -> Checkpoint | None:
    shards = [_take_over(folder, k, part, config, dtype) for k, part in enumerate(slices)]
    tables = [shard.progress() for shard in shards]
    if terms.num_replicas == 1 and any(table != tables[0] for table in tables):
        return None  # a push reached some shards only; the checkpoint is exact, as one replica is
    reached: dict[Holder, Progress] = {}
    for table in tables:
        for holder, progress in table.items():
            reached[holder] = max(progress, reached.get(holder, progress))
    leases, elapsed_s = _leases(folder)
    counted = applied_ranges(terms.counted, leases, reached)
    newest = checkpoint.newest(checkpoints, terms.identity)
    if newest and newest.num_counted >= sum(r.stop - r.start for r in counted):
        return None
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
        num_steps=terms.num_steps
        + (max(file.version for file in files) - terms.version) * config.n_push,
        elapsed_s=elapsed_s,
        final=False,
        keep=config.keep_checkpoints,
    )


def _take_over(
    folder: Path, index: int, part: slice, config: DownpourConfig, dtype: torch.dtype
) -> ParameterShard:
    """The shard as its dead owner left it, with the push finished that was interrupted."""
    rule, count = make_rule(config.rule), part.stop - part.start
    num_bytes = ShardState.num_bytes(count, len(rule.slots), dtype)
    path = folder / f"shard-{index:02d}.state"
    state = ShardState(memory.open_existing(path, num_bytes), count, len(rule.slots), dtype)
    if not state["ready"]:
        raise ValueError(f"{path} was never served")
    shard = ParameterShard(state, rule, int(state["owner_epoch"]) + 1)  # stops a living owner
    _wait_until_still(state)
    shard.finish_interrupted(lambda at: gradient_at(at, count, dtype))
    return shard


def _wait_until_still(state: ShardState) -> None:
    """An orphan that was in the middle of a push may go on to its end, but begin no other."""
    time.sleep(_STILL_S / 10)
    before, since = -1, time.monotonic()
    while state["intent_active"] and time.monotonic() - since < _STILL_S:
        if (block := int(state["intent_next_block"])) != before:
            before, since = block, time.monotonic()
        time.sleep(_STILL_S / 50)


def _terms(folder: Path) -> Terms | None:
    try:
        fields: dict[str, Any] = json.loads((folder / _TERMS).read_bytes())
        fields["counted"] = tuple(Range(*r) for r in fields["counted"])
        return Terms(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _leases(folder: Path) -> tuple[list[tuple[Holder, Lease]], float]:
    """Every lease with its holder, and the seconds of training when the last one was lent."""
    lines = (folder / _LEASES).read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    leases = [((row[0], row[1]), Lease(*row[2])) for row in rows]
    return leases, float(rows[-1][3]) if rows else 0.0
