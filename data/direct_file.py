"""A file written past the system's cache, in whole blocks, while its next bytes are made."""

import errno
import fcntl
import mmap
import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import IO, Final, Self

BUFFER_BYTES: Final = 2 << 20  # written at a time: fits a core's cache, and is enough for a disk
DISK_BLOCK_BYTES: Final = 4096  # what is written directly begins and ends at such


class DirectFile:
    """Appends to a new file; past the system's cache where its file system allows that.

    Through the cache a byte would be copied once more, which takes half as much of a core as
    SHA-256 does, and the sync at the end would have the disk and the cores take turns. A thread
    writes one buffer while the other is filled: what it fails at is raised by a later call. It ends
    with the block, which has to end before the file is closed.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor = file.fileno()
        self._buffer, self._other = _pages(BUFFER_BYTES), _pages(BUFFER_BYTES)
        self._filled = 0  # bytes of the buffer
        self._num_handed = 0  # bytes, to be written or written
        self._is_direct = self._switch(True)
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[None] | None = None  # of the other buffer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()  # it may be writing, and the descriptor is another file's soon

    @property
    def num_bytes(self) -> int:
        return self._num_handed + self._filled

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
        self._await_other()
        if self._is_direct:
            self._is_direct = self._switch(False)
        self._num_handed += self._filled
        self._write(self._buffer[: self._filled])
        self._filled = 0

    def _write_blocks(self) -> None:
        rest = self._filled % DISK_BLOCK_BYTES
        whole = self._filled - rest
        if not whole:
            return
        self._await_other()
        self._other[:rest] = self._buffer[whole : self._filled]
        self._writing = self._thread.submit(self._write, self._buffer[:whole])
        self._buffer, self._other = self._other, self._buffer
        self._num_handed += whole
        self._filled = rest

    def _await_other(self) -> None:
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
    """Memory that begins at a page, as direct writes want it; in large pages if there are any.

    Those are given in one piece when first touched, and a disk is told of one piece, not of 512.
    """
    memory = mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel that was built without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)
