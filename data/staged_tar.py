"""Reading staged tars: verified against the manifest, then indexed for random access."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Final

import numpy as np
import numpy.typing as npt

from data.manifest import TarEntry
from data.tar_format import BLOCK_BYTES, member_bytes

REMEDY: Final = "python -m flows.stage --repair writes this tar again, and only it"


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
    """Verify a tar's size and SHA-256 and index it, once per process and state of the file.

    Raises:
        DamagedTar: missing, cut, or changed in any bit.
    """
    path = folder / entry.file
    return _verified(folder, entry, _status(path, entry).st_mtime_ns)


def check_bytes(folder: Path, entry: TarEntry) -> None:
    """Read a tar and compare its size and SHA-256 with the manifest's.

    Raises:
        DamagedTar: missing, cut, or changed in any bit.
    """
    path = folder / entry.file
    _status(path, entry)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != entry.sha256:
        raise DamagedTar(
            f"{path}: has SHA-256 {found[:16]}..., the manifest says {entry.sha256[:16]}...: "
            f"{REMEDY}"
        )


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


@cache
def _verified(folder: Path, entry: TarEntry, mtime_ns: int) -> StagedTar:
    check_bytes(folder, entry)
    path = folder / entry.file
    with path.open("rb") as file:
        return _indexed(path, file)


def _indexed(path: Path, file: IO[bytes]) -> StagedTar:
    spans: list[tuple[int, int]] = []
    labels: list[int] = []
    sizes: list[tuple[int, int]] = []
    is_jpeg: list[bool] = []
    for name, offset, num_bytes in members(file):
        extension = name.rpartition(".")[2]
        if extension == "cls":
            labels.append(int(os.pread(file.fileno(), num_bytes, offset)))
        elif extension == "json":
            about = json.loads(os.pread(file.fileno(), num_bytes, offset))
            sizes.append((about["width"], about["height"]))
        else:
            spans.append((offset, num_bytes))
            is_jpeg.append(extension == "jpg")
    columns = np.array(spans, np.int64).reshape(-1, 2)
    return StagedTar(
        path=path,
        offsets=columns[:, 0],
        num_bytes=columns[:, 1],
        labels=np.array(labels, np.int64),
        sizes=np.array(sizes, np.int32).reshape(-1, 2),
        is_jpeg=np.array(is_jpeg, np.bool_),
    )


def members(file: IO[bytes]) -> Iterator[tuple[str, int, int]]:
    """Name, data offset and size of each member of a tar that `write_tar` made.

    So names are short and sizes octal; ten times as fast as tarfile, which knows all variants.
    """
    offset = 0
    while any(header := os.pread(file.fileno(), BLOCK_BYTES, offset)):
        num_bytes = int(header[124:135], 8)
        yield header[:100].rstrip(b"\0").decode(), offset + BLOCK_BYTES, num_bytes
        offset += member_bytes(num_bytes)
