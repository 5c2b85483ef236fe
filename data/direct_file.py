"""A file written past the system's cache, from one buffer, in whole blocks."""

import errno
import fcntl
import os
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import IO, Final

BUFFER_BYTES: Final = 2 << 20  # written at a time: fits a core's cache, and is enough for a disk
DISK_BLOCK_BYTES: Final = 4096  # what is written directly begins and ends at such


class DirectFile:
    """Appends to a new file; past the system's cache where its file system allows that.

    Through the cache a byte would be copied once more, which takes half as much of a core as
    SHA-256 does, and the sync at the end would have the disk and the cores take turns.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = file.fileno()
        self._buffer = _pages(BUFFER_BYTES)
        self._filled = 0  # bytes of the buffer
        self._num_written = 0
        self._is_direct = self._switch(True)

    @property
    def num_bytes(self) -> int:
        return self._num_written + self._filled

    def room(self, num_bytes: int) -> memoryview:
        """Give the place of the next bytes, to be filled before `append`; valid until then."""
        if self._filled + num_bytes > len(self._buffer):
            self._write_blocks()
        if self._filled + num_bytes > len(self._buffer):
            larger = _pages(self._filled + num_bytes)
            larger[: self._filled] = self._buffer[: self._filled]
            self._buffer = larger
        return self._buffer[self._filled : self._filled + num_bytes]

    def append(self, num_bytes: int) -> None:
        """Take what was put into the room."""
        self._filled += num_bytes

    def finish(self) -> None:
        """Hand all to the system. Whole blocks are on the disk then; a sync is still needed."""
        self._write_blocks()
        if self._is_direct:
            self._is_direct = self._switch(False)
        self._write(self._buffer[: self._filled])
        self._filled = 0

    def _write_blocks(self) -> None:
        rest = self._filled % DISK_BLOCK_BYTES
        whole = self._filled - rest
        self._write(self._buffer[:whole])
        self._buffer[:rest] = self._buffer[whole : self._filled]
        self._filled = rest

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                num_bytes = os.write(self._descriptor, data)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct:
                    raise
                self._is_direct = self._switch(False)  # wants larger blocks, or none of this
                continue
            self._num_written += num_bytes
            data = data[num_bytes:]

    def _switch(self, direct: bool) -> bool:
        """Tell whether the file is written directly from now on."""
        flags = fcntl.fcntl(self._descriptor, fcntl.F_GETFL) & ~os.O_DIRECT
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, flags | (os.O_DIRECT if direct else 0))
        except OSError:  # a file system without direct writes
            return False
        return direct


def _pages(num_bytes: int) -> memoryview:
    """Memory that begins at a page, as direct writes want it."""
    return memoryview(mmap(-1, num_bytes, flags=MAP_PRIVATE | MAP_ANONYMOUS))
