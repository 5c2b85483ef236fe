"""Memory shared by the processes of one host: files in a private folder of the memory file system.

Unlike anonymous shared memory, a file outlives the process that made it, so a successor can
open it again. The run removes the whole folder at its end; what a killed one left, its survivor or
the next run makes use of and removes (`engine.survivor`, `engine.salvage`).
"""

import mmap
import os
import re
import tempfile
from pathlib import Path

from engine.processes import started_at

_PREFIX = "verydeep-"
_NAME = re.compile(rf"{_PREFIX}(?P<pid>\d{{1,10}})-(?P<started>\d+)-.+")


def shared_root() -> Path:
    """Where memory files live: the memory file system, or the temporary folder without one."""
    shm = Path("/dev/shm")
    return shm if os.access(shm, os.W_OK) else Path(tempfile.gettempdir())


def create_folder(run_token: str) -> Path:
    """A private folder for one run, named after its owner's process, which must remove it."""
    owner = os.getpid()
    folder = shared_root() / f"{_PREFIX}{owner}-{started_at(owner)}-{run_token[:8]}"
    folder.mkdir(mode=0o700)
    return folder


def left_over() -> list[Path]:
    """The folders of owners that are dead."""
    return [path for path in shared_root().glob(f"{_PREFIX}*") if is_left_over(path)]


def owner_of(folder: Path) -> int:
    """The number of the process that made one of our folders."""
    name = _NAME.fullmatch(folder.name)
    if not name:
        raise ValueError(f"{folder}: want the memory folder of a run, {_PREFIX}PID-STARTED-TOKEN")
    return int(name["pid"])


def is_left_over(folder: Path) -> bool:
    """True for a folder of ours whose owner is dead; others may have names like ours."""
    name = _NAME.fullmatch(folder.name)
    try:
        if not name or folder.stat().st_uid != os.getuid():
            return False
        return started_at(int(name["pid"])) != int(name["started"])
    except FileNotFoundError:  # another run has just swept it
        return False


def create(path: Path, num_bytes: int) -> mmap.mmap:
    """Map a new file of zeros; FileExistsError if it is there already.

    It gets its name once it has its size: a successor finds a whole file or none.
    """
    unnamed = path.with_name(f"{path.name}.new")
    descriptor = os.open(unnamed, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
    try:
        _reserve(descriptor, num_bytes, path)
        os.link(unnamed, path)
        return mmap.mmap(descriptor, num_bytes)
    finally:
        unnamed.unlink()
        os.close(descriptor)


def _reserve(descriptor: int, num_bytes: int, path: Path) -> None:
    """Take every page now: where there are too few, writing to one later would be a SIGBUS."""
    try:
        os.posix_fallocate(descriptor, 0, num_bytes)
    except OSError as error:
        message = f"{num_bytes} bytes of shared memory cannot be had: {error.strerror}"
        raise OSError(error.errno, message, str(path)) from error


def open_existing(path: Path, num_bytes: int) -> mmap.mmap:
    """Map a file that must have exactly `num_bytes`."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        if (found := os.fstat(descriptor).st_size) != num_bytes:
            raise ValueError(f"{path}: {found} bytes, want {num_bytes}")
        return mmap.mmap(descriptor, num_bytes)
    finally:
        os.close(descriptor)
