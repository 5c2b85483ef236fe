"""What a dead run leaves behind, made into the checkpoint that it still owed.

Coordinator, scheduler and flow are one process; when that is killed, every role ends, but the
shards' memory files stay until the next run sweeps them, and with durability=power their logs stay
on disk whatever happens. With a journal they say which samples the shards' states contain, so that
the same command goes on with every acknowledged update, not only with those of the last checkpoint.
"""

import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine import checkpoint, memory
from engine.checkpoint import Checkpoint, ShardFile, sync
from engine.config import DownpourConfig
from engine.journal import Terms, read_leases, read_terms
from engine.ledger import Holder, Progress, applied_ranges, num_minibatches
from engine.log_recovery import restore
from engine.rules import make_rule
from engine.run_spec import log_folder
from engine.segment import gradient_at
from engine.shard import ParameterShard
from engine.state import ShardState

log = logging.getLogger(__name__)
#: A push that makes no progress for so long has no owner any more. Orphans end sooner than that.
_STILL_S = 0.5


@dataclass(frozen=True)
class Owed:
    """The run whose checkpoint may be owed."""

    checkpoints: Path
    identity: Mapping[str, str]
    config: DownpourConfig
    slices: Sequence[slice]
    dtype: torch.dtype

    def salvage(self, logs: Path) -> None:
        """Write the checkpoint that a dead run of this folder owed, if it owes one.

        Memory is as new as the log, or newer. Both are removed.

        Args:
            logs: folder of the shards' logs of pushes, if there are any.
        """
        for folder in memory.left_over():
            terms = read_terms(folder)
            if terms is None or terms.checkpoints != str(self.checkpoints.resolve()):
                continue
            self._try(folder, terms)
            shutil.rmtree(folder, ignore_errors=True)
        if (terms := read_terms(logs)) is not None:
            self._try(logs, terms)
        remove_logs(logs)

    def _try(self, folder: Path, terms: Terms) -> None:
        if terms.identity != dict(self.identity):
            return
        try:
            self._write(folder, terms, self._shards(folder, terms))
        except (OSError, ValueError) as error:
            log.warning("%s: its state cannot be used: %s", folder, error)

    def _shards(self, folder: Path, terms: Terms) -> list[ParameterShard]:
        """Every shard; none if they do not fit together."""
        indices = range(len(self.slices))
        if not (folder / "shard-00").exists():
            shards = [self._from_memory(folder, index) for index in indices]
            # The checkpoint is exact, as one replica is; a push that reached some shards is not.
            return shards if terms.num_replicas > 1 or _agree(shards) else []
        source = checkpoint.newest(self.checkpoints, self.identity)
        if source is None:
            raise ValueError(f"{folder}: there is no checkpoint that it could continue")
        shards = [self._from_log(source, folder, index) for index in indices]
        if terms.num_replicas > 1 or _agree(shards):
            return shards
        return [
            self._from_log(source, folder, index, shard.version - surplus)
            for index, (shard, surplus) in enumerate(zip(shards, _surplus(shards), strict=True))
        ]

    def _write(self, folder: Path, terms: Terms, shards: Sequence[ParameterShard]) -> None:
        if not shards:
            return
        reached: dict[Holder, Progress] = {}
        for shard in shards:
            for holder, progress in shard.progress().items():
                reached[holder] = max(progress, reached.get(holder, progress))
        leases, elapsed_s = read_leases(folder)
        counted = applied_ranges(terms.counted, leases, reached)
        newest = checkpoint.newest(self.checkpoints, terms.identity)
        if newest and newest.num_counted >= sum(r.stop - r.start for r in counted):
            return
        id = checkpoint.next_id(self.checkpoints)
        files = []
        for index, shard in enumerate(shards):
            values, slots, version = shard.copy()
            partial = checkpoint.partial_folder(self.checkpoints, id)
            digests = checkpoint.write_shard(partial, index, {"values": values, **slots})
            files.append(ShardFile(version, digests))
        checkpoint.commit(
            self.checkpoints,
            id,
            identity=terms.identity,
            shards=files,
            counted=counted,
            num_steps=num_minibatches(counted, self.config.minibatch_size),
            elapsed_s=elapsed_s,
            final=False,
            keep=self.config.keep_checkpoints,
        )

    def _from_memory(self, folder: Path, index: int) -> ParameterShard:
        """The shard as its dead owner left it, with the push finished that was interrupted."""
        rule, count = make_rule(self.config.rule), self._count(index)
        num_bytes = ShardState.num_bytes(count, len(rule.slots), self.dtype)
        path = folder / f"shard-{index:02d}.state"
        mapped = memory.open_existing(path, num_bytes)
        state = ShardState(mapped, count, len(rule.slots), self.dtype)
        if not state["ready"]:
            raise ValueError(f"{path} was never served")
        shard = ParameterShard(state, rule, int(state["owner_epoch"]) + 1)  # stops a living owner
        _wait_until_still(state)
        shard.finish_interrupted(lambda at: gradient_at(at, count, self.dtype))
        return shard

    def _from_log(
        self, source: Checkpoint, logs: Path, index: int, last: int | None = None
    ) -> ParameterShard:
        """The shard as the newest checkpoint and its log have it, up to version `last`."""
        rule = make_rule(self.config.rule)
        state = ShardState.in_memory(self._count(index), len(rule.slots), self.dtype)
        shard = ParameterShard(state, rule, epoch=1)
        restore(state, shard, rule, index, source, log_folder(logs, index), last)
        return shard

    def _count(self, index: int) -> int:
        part = self.slices[index]
        return int(part.stop - part.start)


def remove_logs(logs: Path) -> None:
    """Remove a folder of logs; while it is being removed nobody takes it for a whole one."""
    if not logs.exists():
        return
    gone = logs.with_name(f"{logs.name}.gone")
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(logs, gone)
    sync(logs.parent)
    shutil.rmtree(gone, ignore_errors=True)


def _agree(shards: Sequence[ParameterShard]) -> bool:
    return all(shard.progress() == shards[0].progress() for shard in shards)


def _surplus(shards: Sequence[ParameterShard]) -> list[int]:
    """Of one replica's pushes, how many of the last each shard has beyond what all of them have."""
    tables = [shard.sequences() for shard in shards]
    newest = max(holder for table in tables for holder in table)
    least = min(table.get(newest, 0) for table in tables)
    return [table.get(newest, 0) - least for table in tables]


def _wait_until_still(state: ShardState) -> None:
    """An orphan that was in the middle of a push may go on to its end, but begin no other."""
    time.sleep(_STILL_S / 10)
    before, since = -1, time.monotonic()
    while state["intent_active"] and time.monotonic() - since < _STILL_S:
        if (block := int(state["intent_next_block"])) != before:
            before, since = block, time.monotonic()
        time.sleep(_STILL_S / 50)
