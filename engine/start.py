"""How a run begins: from its newest checkpoint, or from one made of the initial parameters."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from engine import checkpoint
from engine.checkpoint import Checkpoint, ShardFile
from engine.config import RuleConfig
from engine.identity import SHARDS, CheckpointMismatchError
from engine.problem import Problem, require_samples
from engine.resharding import reshard
from engine.rules import make_rule


def resume_or_begin(
    checkpoints: Path,
    identity: Mapping[str, str],
    problem: Problem,
    rule_config: RuleConfig,
    slices: Sequence[slice],
    start_from: Path | None = None,
    *,
    resharding: bool = False,
) -> Checkpoint:
    """The newest checkpoint of this run; without one, checkpoint 0 with the initial parameters.

    Args:
        start_from: folder of a checkpoint, of any run and number of shards, that has them instead.
        resharding: go on from a checkpoint of another number of shards, too. It is cut anew,
            unless it is final: that one is returned as it is.

    Raises:
        CheckpointError: there is none in `start_from`, or it is damaged.
        CheckpointMismatchError: `checkpoints` belongs to a run of another identity.
        ValueError: the problem has no training sample.
    """
    require_samples(problem)
    if found := checkpoint.newest(checkpoints, identity, resharding=resharding):
        if found.final or found.identity[SHARDS] == identity[SHARDS]:
            return found
        return reshard(found, checkpoints, identity, problem.layout, slices)
    id = checkpoint.next_id(checkpoints)
    folder = checkpoint.partial_folder(checkpoints, id)
    names = make_rule(rule_config).slots
    if start_from is None:
        vectors, version = _with_empty_slots(problem.initial(), names), 0
    else:
        vectors, version = _loaded(start_from, identity, names)
    shards = []
    for index, part in enumerate(slices):
        own = {name: vector[part].clone() for name, vector in vectors.items()}
        shards.append(ShardFile(version, checkpoint.write_shard(folder, index, own)))
    return _commit_first(checkpoints, id, identity, shards)


def begin_from(
    before: Checkpoint, checkpoints: Path, algorithm: str, *, resharding: bool = False
) -> None:
    """Make checkpoint 0 of a run's next phase out of the last one of the phase before.

    Its vectors are the same files: parameters and the rule's slots, at the same version. Nothing
    is done if `checkpoints` has a checkpoint already.

    Args:
        resharding: that one may have another number of shards.
    """
    identity = before.identity | {"algorithm": algorithm}
    if checkpoint.newest(checkpoints, identity, resharding=resharding):
        return
    id = checkpoint.next_id(checkpoints)
    folder = checkpoint.partial_folder(checkpoints, id)
    folder.mkdir(parents=True)
    for index in range(len(before.shards)):
        name = checkpoint.shard_file_name(index)
        os.link(before.folder / name, folder / name)
    _commit_first(checkpoints, id, identity, before.shards)


def _commit_first(
    checkpoints: Path, id: int, identity: Mapping[str, str], shards: Sequence[ShardFile]
) -> Checkpoint:
    return checkpoint.commit(
        checkpoints,
        id,
        identity=identity,
        shards=shards,
        counted=(),
        num_steps=0,
        elapsed_s=0.0,
        final=False,
        keep=1,
    )


def _loaded(
    source: Path, identity: Mapping[str, str], names: Sequence[str]
) -> tuple[dict[str, Tensor], int]:
    """The vectors of the checkpoint in `source`, and how many updates its slots have seen.

    Its slots are taken when they are those of this run's rule; otherwise they start at 0, so that
    Adagrad may go on from a warm start by plain SGD.
    """
    found = checkpoint.read(source)
    theirs, ours = found.identity.get("parameters"), identity["parameters"]
    if theirs != ours:
        raise CheckpointMismatchError(
            f"start_from={source} holds parameters {theirs}, this run has {ours}: "
            "it was made with another network"
        )
    parts = [found.read_shard(shard) for shard in range(len(found.shards))]
    vectors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if vectors.keys() != {"values", *names}:
        return _with_empty_slots(vectors["values"], names), 0
    return vectors, min(shard.version for shard in found.shards)


def _with_empty_slots(values: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
    return {"values": values, **{name: torch.zeros_like(values) for name in names}}


def full_identity(
    identity: Mapping[str, str], problem: Problem, num_shards: int, algorithm: str
) -> dict[str, str]:
    """The caller's identity of the run, with what the engine itself must find unchanged."""
    return {
        **identity,
        "algorithm": algorithm,
        "parameters": f"{problem.layout.size} in layout {problem.layout.digest}",
        SHARDS: str(num_shards),
        "units": str(len(problem.unit_sizes)),
    }
