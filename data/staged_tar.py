"""Reading staged tars: verified against the manifest, then indexed for random access."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from data.elsewhere import brought, is_elsewhere
from data.manifest import TarEntry
from data.tar_scan import REMEDY, require_sound, scan
from data.tar_scan import DamagedTar as DamagedTar  # where readers look for it

INDEXED_TARS: Final = 2048  # kept: 40 kB for 1000 samples


@dataclass(frozen=True)
class StagedTar:
    """The samples of one tar by position. Arrays, because a data set has millions of samples."""

    path: Path
    offsets: npt.NDArray[np.int64]  # (N,) of the images' bytes
    num_bytes: npt.NDArray[np.int64]  # (N,)
    labels: npt.NDArray[np.int64]  # (N,)
    sizes: npt.NDArray[np.int32]  # (N, 2) width and height as decoded, pixels
    is_jpeg: npt.NDArray[np.bool_]  # (N,)

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, file: IO[bytes], position: int) -> bytes:
        """The original bytes; `file` is the opened tar, which threads may share."""
        return os.pread(file.fileno(), int(self.num_bytes[position]), int(self.offsets[position]))


@contextmanager
def opened_tar(folder: Path, entry: TarEntry) -> Iterator[tuple[StagedTar, IO[bytes]]]:
    """Verify, index and open a tar, which is fetched first where the data lies elsewhere.

    Opened, it can be read to the end of the block even if another process makes room of it.

    Raises:
        DamagedTar: as `open_tar` does.
    """
    try:
        staged, file = _opened(folder, entry)
    except DamagedTar:
        if not is_elsewhere(folder):
            raise
        (folder / entry.file).unlink(missing_ok=True)  # what was damaged here is fetched again
        staged, file = _opened(folder, entry)
    with file:
        yield staged, file


def _opened(folder: Path, entry: TarEntry) -> tuple[StagedTar, IO[bytes]]:
    with brought(folder, entry):
        staged = open_tar(folder, entry)
        return staged, staged.path.open("rb")


def open_tar(folder: Path, entry: TarEntry) -> StagedTar:
    """Verify a tar's size and digests and index it, once per process and state of the file.

    Raises:
        DamagedTar: missing, cut, or changed in any bit.
    """
    path = folder / entry.file
    return _verified(folder, entry, _status(path, entry).st_mtime_ns)


def check_bytes(folder: Path, entry: TarEntry) -> None:
    """Read a tar and compare its size and every digest: its own, each image's.

    Raises:
        DamagedTar: missing, cut, or changed in any bit; names the samples hit, where headers lead
            to them.
    """
    path = folder / entry.file
    with brought(folder, entry):
        _status(path, entry)
        with path.open("rb") as file:
            require_sound(scan(file), str(path), entry)


def _status(path: Path, entry: TarEntry) -> os.stat_result:
    try:
        status = path.stat()
    except FileNotFoundError:
        raise DamagedTar(f"{path}: is missing: {REMEDY}") from None
    if status.st_size != entry.num_bytes:
        raise DamagedTar(
            f"{path}: has {status.st_size} bytes, the manifest says {entry.num_bytes}: {REMEDY}"
        )
    return status


@lru_cache(maxsize=INDEXED_TARS)
def _verified(folder: Path, entry: TarEntry, mtime_ns: int) -> StagedTar:
    path = folder / entry.file
    with path.open("rb") as file:
        found = scan(file)
    require_sound(found, str(path), entry)
    spans = np.array(found.spans, np.int64).reshape(-1, 2)
    return StagedTar(
        path=path,
        offsets=spans[:, 0],
        num_bytes=spans[:, 1],
        labels=np.array(found.labels, np.int64),
        sizes=np.array(found.sizes, np.int32).reshape(-1, 2),
        is_jpeg=np.array(found.is_jpeg, np.bool_),
    )
