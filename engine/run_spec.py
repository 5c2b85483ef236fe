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
    phase: int = 0  # that the replicas work in; shards serve every phase
    tls: TlsConfig | None = None
    record: Path | None = None  # where to write down what `engine.replay` needs
    log: Path | None = None  # folder of the shards' logs of pushes; None: durability=process
    log_bytes: int = 0  # of each shard
    shards_of: tuple[tuple[int, ...], ...] = ()  # that each replica of Downpour talks to


def log_folder(log: Path, shard: int) -> Path:
    """Where one shard keeps its log of pushes."""
    return log / f"shard-{shard:02d}"


def segment_name(replica: int, incarnation: int) -> str:
    """Name of the memory file of one life of a replica."""
    return f"replica-{replica:04d}-{incarnation:04d}"
