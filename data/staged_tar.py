"""Reading staged tars: verified against the manifest, then indexed for random access."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from data.manifest import TarEntry
from data.tar_scan import Scan, scan

REMEDY: Final = "python -m flows.stage --repair writes this tar again, and only it"
SHOWN: Final = 5  # samples named in a message
INDEXED_TARS: Final = 2048  # kept: 40 kB for 1000 samples


class DamagedTar(ValueError):
    """A staged tar is not what the manifest says. The text names the tar and what to do."""


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
    _status(path, entry)
    with path.open("rb") as file:
        require_sound(scan(file), str(path), entry)


def require_sound(found: Scan, place: str, entry: TarEntry, remedy: str = REMEDY) -> None:
    """Compare what was read of a tar that lies at `place` with its entry.

    Raises:
        DamagedTar: any difference.
    """
    if found.sha256 == entry.sha256 and found.is_readable and not found.samples_hit:
        return
    what = (
        f"has SHA-256 {found.sha256[:16]}... beside its images, the manifest says "
        f"{entry.sha256[:16]}..."
        if found.sha256 != entry.sha256
        else "holds images that are not those of their SHA-256"
    )
    raise DamagedTar(f"{place}: {what}: {remedy}{_samples_hit(found)}")


def _samples_hit(found: Scan) -> str:
    keys = found.samples_hit
    hit = f"; samples hit: {', '.join(keys[:SHOWN])}" if keys else ""
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    ended = "" if found.is_readable else "; its structure is unreadable from some member on"
    return hit + more + ended


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
