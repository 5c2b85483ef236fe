"""The format of a shard's log of pushes, and how it is read back.

    shard-00/<epoch of the owner>-<version>.log     what came after <version> under that owner

A file begins with the table of applied pushes as of its version; records follow, each with a
checksum of its own. Whatever is torn or altered ends its file there.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.frames import Buffer, as_bytes
from engine.ledger import Progress
from engine.shard import Push
from engine.state import NUM_ROWS, ROW

#: Magic, version, epoch; the table and a checksum of all that follow.
_HEAD = struct.Struct("<8sqq")
_MAGIC = b"pushlog1"
#: Kind, replica, incarnation, sequence, lease, upto, version, scale, bytes of the gradient behind
#: it, checksum of that and of the record itself.
_RECORD = struct.Struct("<8q d 2I")
_SEAL = struct.Struct("<I")
_HEAD_BYTES = _HEAD.size + NUM_ROWS * ROW.itemsize + _SEAL.size
_PUSH, _FENCE = 1, 2


class LogDamagedError(ValueError):
    """Acknowledged pushes are missing in a log."""


class Fence(NamedTuple):
    """A life of a replica was refused from here on."""

    replica: int
    incarnation: int


class Record(NamedTuple):
    """One change of a shard: `version` is that of the parameters when it is done."""

    version: int
    change: Push | Fence
    grad: Tensor  # of a fence: empty
    num_bytes: int


def file_name(epoch: int, version: int) -> str:
    """Name of the file in which `epoch` keeps what comes after `version`; sorts by both."""
    return f"{epoch:06d}-{version:012d}.log"


def encode_head(version: int, epoch: int, rows: Any) -> bytes:
    """What a file begins with."""
    unsealed: bytes = _HEAD.pack(_MAGIC, version, epoch) + rows.tobytes()
    return unsealed + _SEAL.pack(zlib.crc32(unsealed))


def encode_push(version: int, push: Push, grad: Tensor) -> tuple[bytes, Buffer]:
    """A record and the bytes of the gradient, which follow it in the file."""
    payload = as_bytes(grad)
    return _record(_PUSH, push[:3], push.progress, version, push.scale, payload), payload


def encode_fence(version: int, replica: int, incarnation: int) -> bytes:
    """The record of a fence."""
    return _record(_FENCE, (replica, incarnation, 0), Progress(0, 0), version, 0.0, b"")


def _record(
    kind: int,
    id: tuple[int, ...],
    progress: Progress,
    version: int,
    scale: float,
    payload: Buffer,
) -> bytes:
    fields = (kind, *id, *progress, version, len(payload), scale, zlib.crc32(payload))
    unsealed = _RECORD.pack(*fields, 0)[: -_SEAL.size]
    return unsealed + _SEAL.pack(zlib.crc32(unsealed))


@dataclass(frozen=True)
class LogFile:
    """One file whose head is whole."""

    path: Path
    epoch: int
    version: int
    rows: Any  # the table of applied pushes as of `version`

    def records(self, dtype: torch.dtype) -> Iterator[Record]:
        """Its records in order, up to the first that is torn or altered."""
        with self.path.open("rb") as file:
            file.seek(_HEAD_BYTES)
            while record := _read_record(file, dtype):
                yield record


def read_files(folder: Path) -> list[LogFile]:
    """The files of one shard in the order in which they were written.

    One whose head is torn is left out: its owner died before it had put anything into it.

    Raises:
        LogDamagedError: a head was altered.
    """
    found = (_read_head(path) for path in sorted(folder.glob("*.log")))
    return [file for file in found if file]


def _read_head(path: Path) -> LogFile | None:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        more = file.read(1)
    if len(head) < _HEAD_BYTES:
        return None
    _, version, epoch = _HEAD.unpack_from(head)
    rows = np.frombuffer(head, ROW, count=NUM_ROWS, offset=_HEAD.size)
    if encode_head(version, epoch, rows) == head:
        return LogFile(path, epoch, version, rows)
    if more:
        raise LogDamagedError(f"{path}: its head was altered; the pushes behind it are lost")
    return None


def _read_record(file: Any, dtype: torch.dtype) -> Record | None:
    header = file.read(_RECORD.size)
    if len(header) < _RECORD.size:
        return None
    kind, replica, incarnation, sequence, lease, upto, version, size, scale, check, seal = (
        _RECORD.unpack(header)
    )
    if zlib.crc32(header[: -_SEAL.size]) != seal:
        return None
    payload = bytearray(size)
    if file.readinto(payload) < size or zlib.crc32(payload) != check:
        return None
    num_bytes = _RECORD.size + size
    if kind == _FENCE:
        return Record(version, Fence(replica, incarnation), torch.empty(0, dtype=dtype), num_bytes)
    push = Push(replica, incarnation, sequence, version - 1, Progress(lease, upto), scale)
    return Record(version, push, torch.frombuffer(payload, dtype=dtype), num_bytes)
