"""One shard with a log of pushes and checkpoints on disk, whose memory can be lost or left."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import checkpoint
from engine.checkpoint import Checkpoint, ShardFile
from engine.config import RuleConfig
from engine.log_file import read_files
from engine.log_recovery import restore
from engine.push import Push
from engine.push_log import PushLog
from engine.rules import make_rule
from engine.shard import ParameterShard
from engine.state import Location, ShardState
from tests.engine.shards import RULE, Contents, push, vector

SIZE = 40
IDENTITY = {"data": "points"}


@dataclass(frozen=True)
class Whole:
    """Everything that must come back."""

    contents: Contents
    table: bytes

    @staticmethod
    def of(shard: ParameterShard) -> "Whole":
        rows = shard.table()
        told = (rows["high"] > 0) | (rows["fenced"] == 1)  # others are as good as free
        return Whole(Contents.of(shard), rows[told].tobytes())


def new_memory(rule: RuleConfig = RULE) -> ShardState:
    """Of a shard; nobody has owned it."""
    return ShardState.in_memory(SIZE, len(make_rule(rule).slots), torch.float32)


class LoggedShard:
    """One owner: it has what the disk has, and the memory that is left, if it is given any."""

    def __init__(
        self,
        folder: Path,
        epoch: int = 1,
        rule: RuleConfig = RULE,
        limit: int = 10**9,
        memory: ShardState | None = None,
        **heard: Any,
    ) -> None:
        self.folder, self.rule = folder, make_rule(rule)
        self.log = PushLog(folder / "log", epoch, limit, **heard)
        self.memory = state = memory or new_memory(rule)
        if not state["ready"]:
            reader = ParameterShard(state, self.rule, epoch)
            source = newest(folder, self.rule.slots)
            self.repeated = restore(state, reader, self.rule, 0, source, folder / "log")
            state["owner_epoch"] = epoch - 1
        self.shard = ParameterShard(state, self.rule, epoch, log=self.log)
        files, unlogged = read_files(folder / "log"), self.shard.unlogged(gradient_at)
        version, note = self.shard.version, self.shard.note_logged
        self.log.begin(version, self.shard.table(), files, unlogged, note)

    def push(self, sent: Push, acknowledge: bool = True) -> None:
        """Apply it; return once it may be acknowledged."""
        place = Location("/memory/replica", hash(sent[:3]) % 1000)
        self.shard.push(sent, gradient_at(place), place)
        if acknowledge:
            self.log.wait(self.log.written)

    def fence(self, replica: int, incarnation: int) -> None:
        self.shard.fence(replica, incarnation)
        self.log.wait(self.log.written)

    def snapshot(self, id: int) -> Checkpoint:
        """What a shard and the coordinator do for one."""
        values, slots, version = self.shard.copy()
        self.log.rotate(version, self.shard.table())
        written = _write(self.folder, id, {"values": values, **slots}, version)
        self.log.forget(version)
        return written

    @property
    def files(self) -> list[Path]:
        return sorted((self.folder / "log").glob("*.log"))


def gradient_at(place: Location) -> Tensor:
    """What a push has at this place; shape (SIZE,)."""
    return vector(SIZE, place.offset)


def recovered(folder: Path, rule: RuleConfig = RULE) -> Whole:
    """What a successor makes of `folder`, of which nothing is changed."""
    slots = make_rule(rule).slots
    state = new_memory(rule)
    shard = ParameterShard(state, make_rule(rule), epoch=1)
    restore(state, shard, make_rule(rule), 0, newest(folder, slots), folder / "log")
    return Whole.of(shard)


def newest(folder: Path, slots: Any) -> Checkpoint:
    """The newest checkpoint in `folder`; it begins with one."""
    found = checkpoint.newest(folder / "checkpoints", IDENTITY)
    vectors = {"values": vector(SIZE, seed=0), **{name: torch.zeros(SIZE) for name in slots}}
    return found or _write(folder, 0, vectors, 0)


def _write(folder: Path, id: int, vectors: dict[str, torch.Tensor], version: int) -> Checkpoint:
    partial = checkpoint.partial_folder(folder / "checkpoints", id)
    digests = checkpoint.write_shard(partial, 0, vectors)
    return checkpoint.commit(
        folder / "checkpoints",
        id,
        identity=IDENTITY,
        shards=[ShardFile(version, digests)],
        counted=(),
        num_steps=0,
        elapsed_s=0.0,
        final=False,
        keep=2,
    )


def lived_through(shard: LoggedShard, first: int = 1, last: int = 4, replica: int = 0) -> None:
    """Pushes of one life, acknowledged."""
    for sequence in range(first, last + 1):
        shard.push(push(sequence, replica))
