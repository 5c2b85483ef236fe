"""The committed record of an iteration: what a run goes on from when its coordinator is killed.

    records/000012/shard-00.safetensors   the vectors that iteration 12 wrote, slice by slice
    records/record.json                   the newest record, replaced by a rename

The record holds the optimiser's scalars and, for every vector that they name, the folder where its
slices lie and their digests. A vector that has not changed is not written again.
"""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.identity import check_identity

log = logging.getLogger(__name__)
_FILE = "record.json"
_FORMAT = 1

#: Of one shard: for each vector {"folder": ..., "sha256": ...}.
Kept = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, kw_only=True)
class IterationRecord:
    """Where a run stands after an iteration."""

    number: int  # of the record; its new vectors lie in the folder of that number
    epoch: int  # of the coordinator that wrote it
    identity: Mapping[str, str]
    optimiser: Mapping[str, Any]
    kept: Sequence[Kept]  # one a shard
    num_samples: int  # processed so far: the batch's size for every evaluation
    elapsed_s: float


def record_folder(records: Path, number: int) -> Path:
    """Where record `number` writes its vectors."""
    return records / f"{number:06d}"


def write_record(records: Path, record: IterationRecord) -> None:
    """Make `record` the newest, its vectors being written; then forget what it does not need.

    Raises:
        OSError: it cannot be written; the record before is intact.
    """
    document = {"format": _FORMAT, **asdict(record)}
    partial = records / f"{_FILE}.partial"
    with partial.open("w") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, records / _FILE)
    _forget(records, record)


def read_record(
    records: Path, identity: Mapping[str, str], *, resharding: bool = False
) -> IterationRecord | None:
    """The newest record of this run, or None.

    Args:
        resharding: its number of shards may be another one.

    Raises:
        CheckpointMismatchError: it belongs to a run of another identity.
        ValueError: the file is no record.
    """
    path = records / _FILE
    if not path.exists():
        return None
    document = json.loads(path.read_bytes())
    if document.pop("format", None) != _FORMAT:
        raise ValueError(f"{path}: no record of format {_FORMAT}")
    record = IterationRecord(**document)
    check_identity(str(path), "record", record.identity, identity, resharding=resharding)
    return record


def _forget(records: Path, record: IterationRecord) -> None:
    """Remove the folders that the newest record does not name."""
    needed = {entry["folder"] for kept in record.kept for entry in kept.values()}
    for folder in records.glob("[0-9]" * 6):
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)
