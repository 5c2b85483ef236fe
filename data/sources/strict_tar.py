"""Reading tars of unknown origin in one pass: any doubt is an error, nothing is extracted."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, NamedTuple, Self, cast

from data.sources.source import SourceError

# Python's gzip also reads what pigz writes and checks the CRC; tarfile's own "r|gz" does neither.
OPENERS: Final[dict[bytes, Callable[[Path], object]]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
MAX_MEMBER_BYTES: Final = 1 << 28  # no image is larger; a lying header could claim exabytes
MAX_EXTENSION_BYTES: Final = 1 << 20  # long names and the like, which tarfile reads into memory
READ_BYTES: Final = 1 << 20


class Member(NamedTuple):
    """A file or folder of an archive; `offset` is where its data starts, uncompressed."""

    name: str
    is_folder: bool
    offset: int
    num_bytes: int
    read: Callable[[], bytes]  # valid until the next member is asked for


def is_compressed(path: Path) -> bool:
    return _opener(path) is not None


def tar_members(path: Path) -> Iterator[Member]:
    """Yield the files and folders of a tar (.tar, .tar.gz, .tar.bz2, .tar.xz) in their order.

    tarfile takes a damaged header for the end of the archive and stops in silence; here the
    archive has to end with its end mark and nothing but zeros after it.

    Raises:
        SourceError: naming archive, member and offset: not a tar, truncated, damaged, or a member
            that is absolute, has "..", is no regular file or folder, or comes twice.
    """
    with _errors_named(path), _opened(path) as stream:
        yield from _members(path, stream)


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise SourceError(
            f"{path}: cannot be read as .tar, .tar.gz, .tar.bz2 or .tar.xz: {error}"
        ) from error


def _opener(path: Path) -> Callable[[Path], object] | None:
    """None for a plain tar."""
    with path.open("rb") as file:
        start = file.read(8)
    return next((opener for magic, opener in OPENERS.items() if start.startswith(magic)), None)


def _opened(path: Path) -> IO[bytes]:
    opener = _opener(path)
    return path.open("rb") if opener is None else cast(IO[bytes], opener(path))


def _members(path: Path, stream: IO[bytes]) -> Iterator[Member]:
    seen: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictTarInfo) as tar:
        for info in tar:
            place = f"{path}: member {info.name!r} at offset {info.offset}"
            name = _safe_name(info, place)
            if info.isfile() and name in seen:
                raise SourceError(f"{place}: comes twice in the archive")
            if info.isfile():
                seen.add(name)
            read = _Reader(path, stream, info)
            yield Member(name, info.isdir(), info.offset_data, info.size, read)
    while rest := stream.read(READ_BYTES):
        if any(rest):
            raise SourceError(f"{path}: has data after its end mark: damaged, or tars run together")


class _Reader:
    """Reads a member's data; the stream stands at its start when the member is yielded."""

    def __init__(self, path: Path, stream: IO[bytes], info: tarfile.TarInfo) -> None:
        self._path, self._stream, self._info = path, stream, info

    def __call__(self) -> bytes:
        with _errors_named(self._path):  # again: the caller reads outside the generator's frame
            data = self._stream.read(self._info.size)
            if len(data) != self._info.size:
                raise EOFError(f"the archive ends inside member {self._info.name!r}")
            return data


def _safe_name(info: tarfile.TarInfo, place: str) -> str:
    """The member's name without "./" and final "/"; "" is the top folder."""
    if not (info.isfile() or info.isdir()) or info.issparse():
        raise SourceError(f"{place}: is a link, device or sparse file: expected files and folders")
    if not 0 <= info.size <= MAX_MEMBER_BYTES:
        raise SourceError(f"{place}: claims {info.size} bytes: expected 0 to {MAX_MEMBER_BYTES}")
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise SourceError(f"{place}: points outside the archive: absolute and '..' are refused")
    if not info.name.isprintable():
        raise SourceError(f"{place}: its name is not printable UTF-8")
    return "/".join(part for part in info.name.split("/") if part not in ("", "."))


class _StrictTarInfo(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        limit = MAX_MEMBER_BYTES if info.isreg() else MAX_EXTENSION_BYTES
        if not 0 <= info.size <= limit:
            raise tarfile.HeaderError(f"claims {info.size} bytes: expected 0 to {limit}")
        return info

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        assert tar.fileobj is not None
        offset = tar.fileobj.tell()
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # not in typeshed
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"no valid header at offset {offset}: {error}") from error
