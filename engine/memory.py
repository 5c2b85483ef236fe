"""Memory shared by the processes of one host, found by a path, which outlives who made it.

In a run's folder a path is a link to what the run's own process holds open (`engine.keeper`), so
that memory is freed once all of the run is dead, whatever killed it. In any other folder it is a
file, for its maker to remove.
"""

import mmap
import os
import tempfile
from pathlib import Path

from engine import keeper


def shared_root() -> Path:
    """Where memory without a name is: the memory file system, or the temporary folder without."""
    shm = Path("/dev/shm")
    return shm if os.access(shm, os.W_OK) else Path(tempfile.gettempdir())


def create(path: Path, num_bytes: int) -> mmap.mmap:
    """Map new memory, all zeros; FileExistsError if there is something at `path` already.

    It gets its name once it has its size: a successor finds all of it or nothing.

    Raises:
        ConnectionError: the run's own process is dead.
        OSError: there is too little memory.
    """
    if keeper.is_in(path.parent):
        return _create_kept(path, num_bytes)
    unnamed = path.with_name(f"{path.name}.new")
    descriptor = os.open(unnamed, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
    try:
        _reserve(descriptor, num_bytes, path)
        os.link(unnamed, path)
        return mmap.mmap(descriptor, num_bytes)
    finally:
        unnamed.unlink()
        os.close(descriptor)


def _create_kept(path: Path, num_bytes: int) -> mmap.mmap:
    with tempfile.TemporaryFile(dir=shared_root(), buffering=0) as file:
        _reserve(file.fileno(), num_bytes, path)
        keeper.keep(path, file.fileno())
        return mmap.mmap(file.fileno(), num_bytes)


def _reserve(descriptor: int, num_bytes: int, path: Path) -> None:
    """Take every page now: where there are too few, writing to one later would be a SIGBUS."""
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        message = f"{num_bytes} bytes of shared memory cannot be had: {error.strerror}"
        raise OSError(error.errno, message, str(path)) from error


def open_existing(path: Path, num_bytes: int) -> mmap.mmap:
    """Map memory that must have exactly `num_bytes`."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if (found := os.fstat(descriptor).st_size) != num_bytes:
            raise ValueError(f"{path}: {found} bytes, want {num_bytes}")
        return mmap.mmap(descriptor, num_bytes)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Free memory, once nobody maps it any more; nothing if there is none."""
    if keeper.is_in(path.parent):
        keeper.free(path)
    else:
        path.unlink(missing_ok=True)
