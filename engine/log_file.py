"""The format of a shard's log of pushes, and how it is read back.

    shard-00/<epoch of the owner>-<version>.log     what came after <version> under that owner

A file begins with the table of applied pushes as of its version; records follow, each with a
checksum of its own. Whatever is torn or altered ends its file there. Head and records fill whole
blocks, so that the disk can fetch a gradient from where it lies: it is placed in its record such
that blocks of the file are pages of memory, but for its first and its last bytes.
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from isal.isal_zlib import crc32
from torch import Tensor

from engine.block_file import BLOCK, aligned
from engine.frames import as_bytes
from engine.ledger import Progress
from engine.push import Push
from engine.state import NUM_ROWS, ROW

#: Magic, version, epoch; the table and a checksum of all that follow.
_HEAD = struct.Struct("<8sqq")
_MAGIC = b"pushlog2"
#: Kind, replica, incarnation, sequence, lease, upto, version, where in the record the gradient
#: begins and how many bytes it has, scale, checksum of the gradient and of the record itself.
_RECORD = struct.Struct("<9q d 2I")
_SEAL = struct.Struct("<I")
#: The first record begins behind so many.
HEAD_BYTES = aligned(_HEAD.size + NUM_ROWS * ROW.itemsize + _SEAL.size)
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

    def num_bytes(self) -> int:
        """What it takes in a file: whole blocks; another record of the same may take another."""
        return aligned(self._grad_at() + self.grad.nbytes)

    def encode(self, scratch: memoryview) -> list[memoryview]:
        """Whole blocks of memory, the gradient's own as far as possible.

        Args:
            scratch: from `scratch_blocks`, for all else; to be left alone until it is written.
        """
        payload = as_bytes(self.grad) if self.grad.numel() else memoryview(b"")
        num_first, start = self._num_first(), self._grad_at()
        num_last = (len(payload) - num_first) % BLOCK
        scratch[:] = bytes(len(scratch))  # nothing of an earlier record goes to the disk
        first, last = scratch[: aligned(start + num_first)], scratch[2 * BLOCK :]
        first[: _RECORD.size] = self._header(start, payload)
        first[start : start + num_first] = payload[:num_first]
        last[:num_last] = payload[len(payload) - num_last :]
        middle = payload[num_first : len(payload) - num_last]
        return [part for part in (first, middle, last if num_last else middle[:0]) if len(part)]

    def _grad_at(self) -> int:
        """Where in the record the gradient begins."""
        first = self._num_first()
        return _RECORD.size if first == self.grad.nbytes else aligned(_RECORD.size + first) - first

    def _num_first(self) -> int:
        """Bytes of the gradient before its first whole page of memory; all, if it has none."""
        first = -self.grad.data_ptr() % BLOCK
        return first if self.grad.nbytes - first >= BLOCK else self.grad.nbytes

    def _header(self, start: int, payload: memoryview) -> bytes:
        if isinstance(self.change, Fence):
            kind, id, progress, scale = _FENCE, (*self.change, 0), Progress(0, 0), 0.0
        else:
            kind, id = _PUSH, self.change[:3]
            progress, scale = self.change.progress, self.change.scale
        fields = (kind, *id, *progress, self.version, start, len(payload), scale, crc32(payload))
        unsealed = _RECORD.pack(*fields, 0)[: -_SEAL.size]
        return unsealed + _SEAL.pack(crc32(unsealed))


def scratch_blocks() -> memoryview:
    """Memory for the blocks of a record that are not the gradient's own, used again and again."""
    return memoryview(mmap.mmap(-1, 3 * BLOCK))  # a page begins where a block may


def file_name(epoch: int, version: int) -> str:
    """Name of the file in which `epoch` keeps what comes after `version`; sorts by both."""
    return f"{epoch:06d}-{version:012d}.log"


def encode_head(version: int, epoch: int, rows: Any) -> bytes:
    """What a file begins with, HEAD_BYTES of it."""
    unsealed: bytes = _HEAD.pack(_MAGIC, version, epoch) + rows.tobytes()
    return (unsealed + _SEAL.pack(crc32(unsealed))).ljust(HEAD_BYTES, b"\0")


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
            for header in _headers(file):
                file.seek(header.grad_at)
                payload = bytearray(header.size)
                if file.readinto(payload) < header.size or crc32(payload) != header.check:
                    return
                grad = torch.frombuffer(payload, dtype=dtype) if payload else torch.empty(0)
                yield Record(header.version, header.change, grad)

    def end_of(self, version: int) -> int:
        """Bytes up to the end of the records of `version`, gradients unread."""
        with self.path.open("rb") as file:
            ends = [header.end for header in _headers(file) if header.version <= version]
        return ends[-1] if ends else HEAD_BYTES


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
        head = file.read(HEAD_BYTES)
        more = file.read(1)
    if len(head) < HEAD_BYTES:
        return None
    _, version, epoch = _HEAD.unpack_from(head)
    rows = np.frombuffer(head, ROW, count=NUM_ROWS, offset=_HEAD.size)
    if encode_head(version, epoch, rows) == head:
        return LogFile(path, epoch, version, rows)
    if more:
        raise LogDamagedError(f"{path}: its head was altered; the pushes behind it are lost")
    return None


class _Header(NamedTuple):
    """What stands at the beginning of a record; places are bytes of the file."""

    version: int
    change: Push | Fence
    grad_at: int
    size: int
    check: int

    @property
    def end(self) -> int:
        return aligned(self.grad_at + self.size)


def _headers(file: BinaryIO) -> Iterator[_Header]:
    """Of all records up to the first that has none."""
    end = HEAD_BYTES
    while True:
        file.seek(end)
        header = _read_header(file.read(_RECORD.size), end)
        if header is None:
            return
        yield header
        end = header.end


def _read_header(content: bytes, begin: int) -> _Header | None:
    if len(content) < _RECORD.size:
        return None
    kind, replica, incarnation, sequence, lease, upto, version, start, size, scale, check, seal = (
        _RECORD.unpack(content)
    )
    if crc32(content[: -_SEAL.size]) != seal:
        return None
    change: Push | Fence = Fence(replica, incarnation)
    if kind == _PUSH:
        progress = Progress(lease, upto)
        change = Push(replica, incarnation, sequence, version - 1, progress, scale)
    return _Header(version, change, begin + start, size, check)
