"""A file written past the system's cache, in whole blocks, while more of it is made."""

import errno
import fcntl
import os
from concurrent.futures import Future, ThreadPoolExecutor
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import IO, Final, Self

BUFFER_BYTES: Final = (
    1 << 20
)  # written at a time: stays in a core's cache, and is enough for a disk
DISK_BLOCK_BYTES: Final = 4096  # what is written directly begins and ends at such


class DirectFile:
    """Appends to a new file; past the system's cache where its file system allows that.

    Through the cache a byte would be copied once more, which takes half as much of a core as
    SHA-256 does, and the sync at the end would have the disk and the cores take turns. While one
    buffer is written the other is filled. An error of a write is raised by a later call.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = file.fileno()
        self._buffer, self._spare = _pages(BUFFER_BYTES), _pages(BUFFER_BYTES)
        self._filled = 0  # bytes of the buffer
        self.num_bytes = 0
        self._is_direct = self._switch(True)
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()  # before the file is closed and its number given to another one

    def room(self, num_bytes: int) -> memoryview:
        """Give the place of the next bytes, to be filled before `append`; valid until then."""
        if self._filled + num_bytes > len(self._buffer):
            self._write_blocks(num_bytes)
        return self._buffer[self._filled : self._filled + num_bytes]

    def append(self, num_bytes: int) -> None:
        """Take what was put into the room."""
        self._filled += num_bytes
        self.num_bytes += num_bytes

    def finish(self) -> None:
        """Hand all to the system. Whole blocks are on the disk then; a sync is still needed."""
        self._write_blocks()
        self._wait()
        if self._is_direct:
            self._is_direct = self._switch(False)
        self._write(self._buffer[: self._filled])

    def _write_blocks(self, num_more: int = 0) -> None:
        """Begin to write the whole blocks, and have a buffer for the rest and so many bytes."""
        self._wait()
        rest = self._filled % DISK_BLOCK_BYTES
        whole = self._filled - rest
        if len(self._spare) < rest + num_more:
            self._spare = _pages(rest + num_more)
        self._spare[:rest] = self._buffer[whole : self._filled]
        self._writing = self._thread.submit(self._write, self._buffer[:whole])
        self._buffer, self._spare = self._spare, self._buffer
        self._filled = rest

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _write(self, data: memoryview) -> None:
        while data:
            try:
                num_bytes = os.write(self._descriptor, data)
            except OSError as error:
                if error.errno != errno.EINVAL or not self._is_direct:
                    raise
                self._is_direct = self._switch(False)  # wants larger blocks, or none of this
                continue
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
