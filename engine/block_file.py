"""A file that grows by whole blocks, written past the page cache where the system can do that.

The disk fetches what is written from the caller's own memory: no copy of it, no pages to find and
to write back, and so hardly any work for the processor. Room on the disk is taken in advance, so
that a full one is noticed before anything is promised.
"""

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

#: What is written begins and ends at multiples of so many bytes, in the file and in memory.
BLOCK = 4096
#: Room is taken in steps of this many bytes, or of what is needed if there is no more.
_STEP = 1 << 25


def aligned(num_bytes: int) -> int:
    """The next multiple of a block."""
    return -(-num_bytes // BLOCK) * BLOCK


class BlockFile:
    """One open file; what lies behind `end` is zeros, and goes when it is closed."""

    def __init__(self, path: Path, end: int = 0) -> None:
        """Open `path` to go on behind its first `end` bytes, a multiple of a block."""
        self.path, self.end = path, end
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._descriptor, end)
        self._room = end
        self._direct = self._descriptor
        with suppress(OSError):  # some file systems have pages only
            self._direct = os.open(path, os.O_WRONLY | os.O_DIRECT)

    def reserve(self, num_bytes: int) -> int:
        """Take the next `num_bytes`, a multiple of a block; return where they begin.

        Raises:
            OSError: the disk is full; the file is as before.
        """
        while self.end + num_bytes > self._room:
            self._extend(num_bytes)
        self.end += num_bytes
        return self.end - num_bytes

    def write(self, offset: int, parts: Sequence[memoryview]) -> None:
        """Write whole blocks of memory, one behind the other, into what was reserved."""
        _write(self._direct, offset, parts)

    def append(self, content: bytes) -> None:
        """Write whole blocks from anywhere in memory, and sync them: the file ends there then."""
        _write(self._descriptor, self.end, [memoryview(content)])
        os.fsync(self._descriptor)
        self.end = self._room = self.end + len(content)

    def sync(self) -> None:
        """Return when all that was written is on the disk."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Give back the room that was not used."""
        with suppress(OSError):  # zeros at the end do no harm
            os.ftruncate(self._descriptor, self.end)
        for descriptor in {self._descriptor, self._direct}:
            os.close(descriptor)

    def _extend(self, num_bytes: int) -> None:
        try:
            os.posix_fallocate(self._descriptor, self._room, _STEP)
            self._room += _STEP
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            os.posix_fallocate(self._descriptor, self.end, num_bytes)
            self._room = self.end + num_bytes


def _write(descriptor: int, offset: int, parts: Sequence[memoryview]) -> None:
    """All of it, in as few calls as the system allows."""
    rest = list(parts)
    while rest:
        count = os.pwritev(descriptor, rest, offset)
        offset += count
        while rest and count >= len(rest[0]):
            count -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][count:]
