"""Checkpoints of a tiny run, written as the engine writes them."""

from pathlib import Path

import torch

from engine import checkpoint
from engine.checkpoint import Checkpoint, ShardFile
from engine.ledger import Range

IDENTITY = {"data": "digits", "model": "A", "shards": "2"}
COUNTED = (Range(0, 0, 0, 40), Range(0, 2, 8, 24))


def vectors(shard: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Values and a slot of one shard: random, no two alike."""
    generator = torch.Generator().manual_seed(10 * seed + shard)
    return {name: torch.randn(50, generator=generator) for name in ("values", "velocity")}


def write(folder: Path, id: int = 0, keep: int = 9, **changed) -> Checkpoint:
    """Checkpoint `id` of two shards in `folder`; its vectors are those of seed `id`."""
    partial = checkpoint.partial_folder(folder, id)
    digests = [checkpoint.write_shard(partial, shard, vectors(shard, id)) for shard in range(2)]
    fields = {
        "identity": IDENTITY,
        "shards": [ShardFile(version=17 + k, digests=digests[k]) for k in range(2)],
        "counted": COUNTED,
        "num_steps": 7,
        "elapsed_s": 1.25,
        "final": False,
        "keep": keep,
    }
    return checkpoint.commit(folder, id, **fields | changed)
