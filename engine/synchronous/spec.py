"""What every rank of one synchronous run knows."""

from dataclasses import dataclass
from pathlib import Path

from engine.config import SynchronousConfig, TlsConfig


@dataclass(frozen=True)
class SynchronousSpec:
    """What every rank of one synchronous run knows."""

    driver: tuple[str, int]
    token: str
    host: str
    meeting: Path  # private folder in which the ranks of an attempt find each other
    checkpoints: Path
    num_ranks: int
    config: SynchronousConfig
    heartbeat_interval_s: float
    tls: TlsConfig | None = None
