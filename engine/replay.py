"""Repeats a recorded run in one process: the same weights, bit for bit.

What a run computes depends on chance in two places only: in which order each shard applied which
pushes, and which versions each fetch saw. Both are in the record; all else is computed again.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.clipping import with_clipping
from engine.config import DownpourConfig
from engine.downpour import Answer, Compute, Fetch, Idle, StartPush, Take, downpour
from engine.draws import seed_draws
from engine.ledger import Lease, Progress
from engine.loader import LeaseReply, leased_minibatches
from engine.partition import problem_of, shards_by_replica
from engine.problem import Problem
from engine.push import Push
from engine.rules import make_rule
from engine.shard import ParameterShard
from engine.state import ShardState

#: Gradients by (replica, incarnation, sequence) of their push.
Gradients = dict[tuple[int, int, int], Tensor]


class ReplayError(ValueError):
    """The record does not lead to the versions asked for; the message says where it ends."""


def replay(
    problem: Problem,
    config: DownpourConfig,
    record: Path,
    start: Sequence[tuple[Mapping[str, Tensor], int]],
    versions: Sequence[int],
) -> Tensor:
    """The parameters, shape (P,), that a recorded run had when its shards had these versions.

    Gradients come out the same only with as many torch threads as the replicas had.

    Args:
        record: folder of one attempt, see `engine.record`.
        start: what each shard began with: "values", the rule's slots by name, and the version.
        versions: of each shard at the end.

    Raises:
        ReplayError: the record is not one of such a run.
    """
    rows = {path.stem: _rows(path) for path in sorted(record.glob("*.jsonl"))}
    parts = problem.layout.slices(len(start))
    names = [name for name in rows if name.startswith("replica")]
    num_replicas = 1 + max((_replica(name) for name in names), default=0)
    shards_of = shards_by_replica(problem, num_replicas, parts)
    fetched: list[set[int]] = [set() for _ in start]  # versions, by shard
    for name in names:
        for versions_seen in (row[1] for row in rows[name] if row[0] == "fetch"):
            for k, version in zip(shards_of[_replica(name)], versions_seen, strict=True):
                fetched[k].add(version)
    shards = [
        _Shard(rows[f"shard-{k:02d}"], config, *start[k], versions[k], fetched[k])
        for k in range(len(start))
    ]
    gradients: Gradients = {}
    lives = []
    for name in names:
        own = {shards[k]: parts[k] for k in shards_of[_replica(name)]}
        of_replica = with_clipping(problem_of(problem, _replica(name)), config.clip)
        lives.append(_life(name, rows[name], of_replica, config, own, gradients))
    moved = True
    while moved:
        lives = [life for life in lives if next(life, False) is not False]
        moved = any(s.go_on(gradients, part) for s, part in zip(shards, parts, strict=True))
    for k, shard in enumerate(shards):
        if shard.version != versions[k]:
            raise ReplayError(
                f"{record}: shard {k} gets no further than version {shard.version}, want "
                f"{versions[k]}: push {shard.waits_for()} is not in the record of its replica"
            )
    return torch.cat([shard.history[shard.version] for shard in shards])


def _life(
    name: str,
    rows: list[Any],
    problem: Problem,
    config: DownpourConfig,
    shards: Mapping["_Shard", slice],
    gradients: Gradients,
) -> Iterator[None]:
    """Compute one life of a replica again; yields whenever it has to wait for a shard.

    Args:
        shards: that it talked to, each with its slice of the vector.
    """
    _, replica, incarnation = name.split("-")
    leases = deque((Lease(*row[1]), row[2]) for row in rows if row[0] == "lease")
    takes = deque(row[0] for row in rows if row[0] in ("take", "idle"))
    fetches = deque(row[1] for row in rows if row[0] == "fetch")

    def lend() -> LeaseReply:
        return LeaseReply(*leases.popleft(), False) if leases else LeaseReply(None, 1.0, True)

    minibatches = leased_minibatches(lend, problem, config.minibatch_size, config.seed)
    parameters = torch.zeros_like(problem.initial())
    grad, accrued = torch.empty_like(parameters), torch.empty_like(parameters)
    sequence = 0
    program = downpour(config)
    instruction = next(program)
    while True:
        answer: Answer = None
        match instruction:
            case Take():
                if not takes:
                    return
                answer = Idle() if takes.popleft() == "idle" else next(minibatches)
            case Compute(minibatch, first):
                seed_draws(minibatch.seed)
                problem.gradient_(parameters, minibatch.payload, grad)
                accrued = grad.clone() if first else accrued.add_(grad)
                if config.alpha:
                    parameters.add_(grad, alpha=-config.alpha)
            case StartPush():
                sequence += 1
                gradients[int(replica), int(incarnation), sequence] = accrued.clone()
        if isinstance(instruction, Fetch) or getattr(instruction, "then_fetch", False):
            if not fetches:
                return
            versions = fetches.popleft()
            while not all(v in s.history for s, v in zip(shards, versions, strict=True)):
                yield
            for (shard, part), version in zip(shards.items(), versions, strict=True):
                parameters[part] = shard.history[version]
        instruction = program.send(answer)


class _Shard:
    """A shard that applies pushes in the recorded order and keeps what somebody fetched."""

    def __init__(
        self,
        rows: list[Any],
        config: DownpourConfig,
        vectors: Mapping[str, Tensor],
        version: int,
        last: int,
        fetched: set[int],
    ) -> None:
        rule, values = make_rule(config.rule), vectors["values"]
        state = ShardState.in_memory(values.numel(), len(rule.slots), values.dtype)
        state.fill(values, [vectors[name] for name in rule.slots], version)
        self._shard = ParameterShard(state, rule, epoch=1)
        self._pushes = {row[1]: row[2:] for row in rows}  # by version; the last row holds
        self._last = last
        self._kept = fetched | {last}
        self.history: dict[int, Tensor] = {}  # values by version
        self._keep()

    @property
    def version(self) -> int:
        return self._shard.version

    def waits_for(self) -> tuple[int, int, int]:
        """(replica, incarnation, sequence) of the next push; zeros when none is recorded."""
        replica, incarnation, sequence, _ = self._pushes.get(self.version + 1, (0, 0, 0, 0))
        return replica, incarnation, sequence

    def go_on(self, gradients: Gradients, part: slice) -> bool:
        """Apply what can be applied; False if that is nothing."""
        before = self.version
        while self.version < self._last and (grad := gradients.get(self.waits_for())) is not None:
            replica, incarnation, sequence, scale = self._pushes[self.version + 1]
            push = Push(replica, incarnation, sequence, self.version, Progress(0, 0), scale)
            self._shard.push(push, grad[part])
            self._keep()
        return self.version > before

    def _keep(self) -> None:
        if self.version in self._kept:
            self.history[self.version] = self._shard.copy()[0]


def _replica(name: str) -> int:
    """Whose life the file of this name records."""
    return int(name.split("-")[1])


def _rows(path: Path) -> list[Any]:
    """The rows of one file; a last one that was torn by a kill has not happened."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
