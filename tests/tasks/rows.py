"""Event logs as the engine writes them, made by hand."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def start(time_s: float = 0.0, total: int = 1000, resumed_at: int = 0) -> Row:
    return {
        "time_s": time_s,
        "event": "start",
        "num_samples_total": total,
        "num_epochs": 2,
        "resumed_at_samples": resumed_at,
        "replicas": 2,
        "shards": 2,
    }


def progress(time_s: float, samples: int, replica: int = 0, **changed: Any) -> Row:
    return {
        "time_s": time_s,
        "event": "progress",
        "replica": replica,
        "samples": samples,
        "replica_samples": samples // 2,
        "loss": 2.0,
        "images_per_s": 50.0,
        "staleness": {"0": {"0": 2, "2": 1}, "1": {"0": 1}},
        "waiting_s": 0.25,
    } | changed


def validation(time_s: float, samples: int, top1_error: float) -> Row:
    metrics = {"top1_error": top1_error, "loss": 1.0}
    return {
        "time_s": time_s,
        "event": "validation",
        "samples": samples,
        "epoch": samples / 500,
        "metrics": metrics,
    }


def event(name: str, time_s: float, **values: Any) -> Row:
    return {"time_s": time_s, "event": name, **values}


def write_log(path: Path, rows: Iterable[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def eventful_run() -> list[Row]:
    """A run in which a replica and a shard were lost, and which was then stopped and resumed."""
    return [
        start(),
        event("shard_serving", 0.1, shard=0, epoch=1, version=0, restored_from="checkpoint", pid=1),
        event("replica_joined", 0.2, replica=0, incarnation=1, pid=2),
        progress(2.0, 100),
        event("replica_lost", 3.0, replica=1, incarnation=1, pid=3, reason="connection ended"),
        event("replica_settled", 3.1, replica=1, incarnation=1, samples_returned=64),
        event("replica_joined", 4.0, replica=1, incarnation=2, pid=4),
        progress(5.0, 300, replica=1),
        validation(6.0, 300, 0.5),
        event("shard_lost", 6.5, shard=0, epoch=1, pid=1, reason="connection ended"),
        event("shard_serving", 7.0, shard=0, epoch=2, version=9, restored_from="memory", pid=5),
        progress(8.0, 500),
        start(8.5, resumed_at=300),
        progress(9.0, 400, loss=1.5),
        progress(12.0, 1000, replica=1, loss=1.0),
        validation(13.0, 1000, 0.25),
        event("finished", 13.5, samples=1000, elapsed_s=13.5),
    ]
