"""What every role of one run knows: addresses, the shared folder, the shape of the vector."""

from dataclasses import dataclass
from pathlib import Path

import torch

from engine.config import TlsConfig


@dataclass(frozen=True)
class RunSpec:
    """What every role of one run knows."""

    coordinator: tuple[str, int]
    token: str
    host: str
    memory: Path  # folder of the run's memory files
    checkpoints: Path
    size: int  # P, number of parameters
    dtype: torch.dtype
    slices: tuple[slice, ...]  # of the parameter vector, one a shard
    heartbeat_interval_s: float
    tls: TlsConfig | None = None
    phase: int = 0  # that the replicas work in; shards serve every phase
    record: Path | None = None  # where to write down what `engine.replay` needs


def segment_name(replica: int, incarnation: int) -> str:
    """Name of the memory file of one life of a replica."""
    return f"replica-{replica:04d}-{incarnation:04d}"
