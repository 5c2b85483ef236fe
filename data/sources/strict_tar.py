"""Reading tars of unknown origin in one pass: any doubt is an error, nothing is extracted."""

import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Final, NamedTuple, Self, cast

from data.sources.digests import Digest
from data.sources.errors import SourceError
from data.sources.name_set import NameSet
from data.sources.places import open_file
from data.sources.plain_tar import MAX_MEMBER_BYTES, PlainFiles, plain_files
from data.sources.streams import DAMAGE, Window, unpacked, unpacker_of
from data.tar_format import BLOCK_BYTES, member_bytes

MAX_INNER_BYTES: Final = 1 << 34  # of a tar inside a tar, which is never held in memory
MAX_EXTENSION_BYTES: Final = 1 << 20  # long names and the like, which tarfile reads into memory
MAX_EMPTY_FILES: Final = 1000
MAX_FOLDERS: Final = 100_000
READ_BYTES: Final = 1 << 20
TAR: Final = ".tar"


class Member(NamedTuple):
    """A file or folder of an archive; `offset` is where its data starts, uncompressed.

    What lies in a tar inside the tar is called INNER.tar/NAME.
    """

    name: str
    is_folder: bool
    offset: int
    num_bytes: int
    read: Callable[[], bytes]  # valid until the next member is asked for


@dataclass(frozen=True)
class PlainMembers:
    """Files one behind the other, with nothing odd about them: columns of what members have."""

    names: Sequence[str]
    offsets: Sequence[int]
    sizes: Sequence[int]  # bytes
    read: Callable[[str, int, int], bytes]  # of one of them: name, offset, size

    def __iter__(self) -> Iterator[Member]:
        for found in zip(self.names, self.offsets, self.sizes, strict=True):
            yield Member(found[0], False, found[1], found[2], partial(self.read, *found))


def is_compressed(place: str) -> bool:
    with open_file(place) as file:
        return unpacker_of(file) is not None


def tar_members(
    place: str, of_tars: bool = False, digest: Digest | None = None
) -> Iterator[Member]:
    """Yield the files and folders of a tar (.tar, .tar.gz, .tar.bz2, .tar.xz) in their order.

    tarfile takes a damaged header for the end of the archive and stops in silence; here the
    archive has to end with its end mark and nothing but zeros after it.

    Args:
        place: path or URL.
        of_tars: open the tars that are members, one level deep, and give their members instead.
        digest: what the file's digest should be; to find out, all of it is read.

    Raises:
        SourceError: naming archive, member and offset: not a tar, truncated, damaged, or a member
            that is absolute, has "..", is no regular file or folder, or comes twice; too many
            empty ones; a decompression bomb; another digest.
    """
    return _one_by_one(tar_pieces(place, of_tars, digest))


def tar_pieces(
    place: str, of_tars: bool = False, digest: Digest | None = None
) -> Iterator[Member | PlainMembers]:
    """The same, but plain files of a tar on a disk come many at a time."""
    with errors_named(place), open_file(place) as file:
        yield from _stream_pieces(file, place, of_tars, digest)


def stream_members(
    file: IO[bytes], place: str, of_tars: bool = False, digest: Digest | None = None
) -> Iterator[Member]:
    """The same for an opened file, which messages call `place`."""
    return _one_by_one(_stream_pieces(file, place, of_tars, digest))


def _one_by_one(pieces: Iterable[Member | PlainMembers]) -> Iterator[Member]:
    for piece in pieces:
        if isinstance(piece, Member):
            yield piece
        else:
            yield from piece


def _stream_pieces(
    file: IO[bytes], place: str, of_tars: bool, digest: Digest | None
) -> Iterator[Member | PlainMembers]:
    with unpacked(file, place, digest) as stream:
        yield from _members(stream, place, 0, levels=1 if of_tars else None)
        while rest := stream.read(READ_BYTES):
            if any(rest):
                raise SourceError(
                    f"{place}: has data after its end mark: damaged, or tars run together"
                )


@contextmanager
def errors_named(place: str) -> Iterator[None]:
    """Name the archive in what the libraries raise about its bytes."""
    try:
        yield
    except (tarfile.TarError, *DAMAGE) as error:
        if isinstance(error, OSError) and error.errno:  # the system's, not a decompressor's
            raise SourceError(f"{place}: cannot be read: {error.strerror}") from error
        raise SourceError(
            f"{place}: cannot be read as .tar, .tar.gz, .tar.bz2 or .tar.xz: {error}: if it is "
            "one, it is damaged or was not fetched to its end: fetch it again"
        ) from error


def _members(
    stream: IO[bytes], place: str, start: int, levels: int | None, outer: str = ""
) -> Iterator[Member | PlainMembers]:
    """`levels`: how deep tars are opened; None: they are files like others."""
    seen = NameSet()
    limits = _Limits()
    extent = stream.extent if isinstance(stream, Window) else None
    with tarfile.open(fileobj=stream, mode="r:", tarinfo=_StrictTarInfo) as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep all, 1 kB each
            where = f"{place}: member {outer + info.name!r} at offset {start + info.offset}"
            is_inner = levels is not None and info.isfile() and info.name.endswith(TAR)
            name = _safe_name(info, where, MAX_INNER_BYTES if is_inner else MAX_MEMBER_BYTES)
            if info.isfile() and not seen.add(name):
                raise SourceError(f"{where}: comes twice in the archive")
            limits.count(info, where)
            offset = start + info.offset_data
            if is_inner:
                yield from _inner_members(stream, info, place, offset, levels, f"{outer}{name}")
            else:
                read = partial(_data, place, stream, name, info.offset_data, info.size)
                yield Member(outer + name, info.isdir(), offset, info.size, read)
            if extent is not None and not tar.pax_headers:  # those hold for all that follow
                for files in plain_files(extent, tar.offset):
                    num_new = seen.add_until_known(files.names)
                    yield _plain_members(stream, place, start, outer, files, num_new)
                    if num_new < len(files.names):
                        at, name = start + files.headers_at[num_new], outer + files.names[num_new]
                        where = f"member {name!r} at offset {at}"
                        raise SourceError(f"{place}: {where}: comes twice in the archive")
                    tar.offset = files.headers_at[-1] + member_bytes(files.sizes[-1])


def _plain_members(
    stream: IO[bytes], place: str, start: int, outer: str, files: PlainFiles, num: int
) -> PlainMembers:
    """The first `num` of them."""

    def read(name: str, offset: int, size: int) -> bytes:
        return _data(place, stream, name.removeprefix(outer), offset - start, size)

    names = [outer + name for name in files.names[:num]] if outer else files.names[:num]
    offsets = [start + BLOCK_BYTES + at for at in files.headers_at[:num]]
    return PlainMembers(names, offsets, files.sizes[:num], read)


def _inner_members(
    stream: IO[bytes],
    info: tarfile.TarInfo,
    place: str,
    offset: int,
    levels: int | None,
    name: str,
) -> Iterator[Member | PlainMembers]:
    if not levels:
        raise SourceError(f"{place}: member {name!r} at offset {offset}: tars nested too deep")
    window = Window(stream, info.size)
    try:
        yield from _members(cast(IO[bytes], window), place, offset, levels - 1, f"{name}/")
    except (tarfile.TarError, EOFError) as error:
        raise SourceError(f"{place}: member {name!r} at offset {offset}: {error}") from error
    while rest := window.read(READ_BYTES):
        if any(rest):
            raise SourceError(f"{place}: member {name!r} at offset {offset}: data after its end")


class _Limits:
    """Bounds what a list of worthless members may cost."""

    def __init__(self) -> None:
        self._num_empty = self._num_folders = 0

    def count(self, info: tarfile.TarInfo, where: str) -> None:
        self._num_folders += info.isdir()
        self._num_empty += info.isfile() and info.size == 0
        if self._num_empty > MAX_EMPTY_FILES:
            raise SourceError(f"{where}: is the archive's empty file number {self._num_empty}")
        if self._num_folders > MAX_FOLDERS:
            raise SourceError(f"{where}: is the archive's folder number {self._num_folders}")


def _data(place: str, stream: IO[bytes], name: str, at: int, num_bytes: int) -> bytes:
    with errors_named(place):  # again: the caller reads outside the generator's frame
        stream.seek(at)
        data = stream.read(num_bytes)
        if len(data) != num_bytes:
            raise EOFError(f"the archive ends inside member {name!r}")
        return data


def _safe_name(info: tarfile.TarInfo, where: str, max_bytes: int) -> str:
    """The member's name without "./" and final "/"; "" is the top folder."""
    if not (info.isfile() or info.isdir()) or info.issparse():
        raise SourceError(f"{where}: is a link, device or sparse file: expected files and folders")
    if not 0 <= info.size <= max_bytes:
        raise SourceError(f"{where}: claims {info.size} bytes: expected 0 to {max_bytes}")
    if info.name.startswith("/") or ".." in info.name.split("/"):
        raise SourceError(f"{where}: points outside the archive: absolute and '..' are refused")
    if not info.name.isprintable():
        raise SourceError(f"{where}: its name is not printable UTF-8")
    return "/".join(part for part in info.name.split("/") if part not in ("", "."))


class _StrictTarInfo(tarfile.TarInfo):
    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        info = super().frombuf(buf, encoding, errors)
        regular = MAX_INNER_BYTES if info.name.endswith(TAR) else MAX_MEMBER_BYTES
        limit = regular if info.isreg() else MAX_EXTENSION_BYTES
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
