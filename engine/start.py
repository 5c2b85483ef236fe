"""How a run begins: from its newest checkpoint, or from one made of the initial parameters."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from engine import checkpoint
from engine.checkpoint import Checkpoint, ShardFile
from engine.config import RuleConfig
from engine.problem import Problem
from engine.rules import make_rule


def resume_or_begin(
    checkpoints: Path,
    identity: Mapping[str, str],
    problem: Problem,
    rule_config: RuleConfig,
    slices: Sequence[slice],
) -> Checkpoint:
    """The newest checkpoint of this run; without one, checkpoint 0 with the initial parameters.

    Raises:
        CheckpointMismatchError: `checkpoints` belongs to a run of another identity.
    """
    if found := checkpoint.newest(checkpoints, identity):
        return found
    id = checkpoint.next_id(checkpoints)
    folder = checkpoint.partial_folder(checkpoints, id)
    initial = problem.initial()
    shards = []
    for index, part in enumerate(slices):
        values = initial[part].clone()
        slots = {name: torch.zeros_like(values) for name in make_rule(rule_config).slots}
        digests = checkpoint.write_shard(folder, index, {"values": values, **slots})
        shards.append(ShardFile(version=0, digests=digests))
    return _commit_first(checkpoints, id, identity, shards)


def begin_from(
    before: Checkpoint,
    checkpoints: Path,
    identity: Mapping[str, str],
    rule_config: RuleConfig,
) -> None:
    """Make checkpoint 0 of a new run out of the parameters of another's; its rule starts anew.

    Nothing is done if `checkpoints` has a checkpoint already.
    """
    if checkpoint.newest(checkpoints, identity):
        return
    id = checkpoint.next_id(checkpoints)
    folder = checkpoint.partial_folder(checkpoints, id)
    shards = []
    for index in range(len(before.shards)):
        values = before.read_shard(index)["values"]
        slots = {name: torch.zeros_like(values) for name in make_rule(rule_config).slots}
        digests = checkpoint.write_shard(folder, index, {"values": values, **slots})
        shards.append(ShardFile(version=0, digests=digests))
    _commit_first(checkpoints, id, identity, shards)


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


def full_identity(
    identity: Mapping[str, str], problem: Problem, num_shards: int, algorithm: str
) -> dict[str, str]:
    """The caller's identity of the run, with what the engine itself must find unchanged."""
    return {
        **identity,
        "algorithm": algorithm,
        "parameters": f"{problem.layout.size} in layout {problem.layout.digest}",
        "shards": str(num_shards),
        "units": str(len(problem.unit_sizes)),
    }
