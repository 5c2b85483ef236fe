"""The bytes of an archive from start to end: unpacked, hashed and capped on the way."""

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, Final, cast

from data.sources.digests import Digest
from data.sources.errors import SourceError
from data.sources.plain_tar import Extent

# Python's gzip also reads what pigz writes and checks the CRC; tarfile's own "r|gz" does neither.
UNPACKERS: Final[dict[bytes, Callable[[Any], Any]]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file, mode="rb"),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
DAMAGE: Final = (OSError, EOFError, zlib.error, lzma.LZMAError)
PIECE_BYTES: Final = 1 << 20
MAX_RATIO: Final = 200  # unpacked to packed; annotations, the most compressible, reach 40
FREE_BYTES: Final = 32 << 20  # below this the ratio does not matter: padding compresses well


class Forward:
    """A stream read once, from start to end; `watch` sees every byte, skipped ones too."""

    def __init__(self, stream: IO[bytes], watch: Callable[[bytes], object]) -> None:
        self._stream, self._watch = stream, watch
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        if 0 <= size <= PIECE_BYTES:
            return self._piece(size)
        parts = io.BytesIO()
        while size and (data := self._piece(min(size, PIECE_BYTES) if size > 0 else PIECE_BYTES)):
            parts.write(data)
            size -= len(data) if size > 0 else 0
        return parts.getvalue()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET
        assert offset >= self._position, "a stream has no way back"
        while self._position < offset:
            if not self._piece(min(PIECE_BYTES, offset - self._position)):
                break
        return self._position

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return False

    def readable(self) -> bool:
        return True

    def _piece(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._position += len(data)
        self._watch(data)
        return data


class Window:
    """A part of a stream as a stream of its own; while it is used, nobody else moves the stream."""

    def __init__(self, stream: IO[bytes], num_bytes: int) -> None:
        self._stream, self._start, self._num_bytes = stream, stream.tell(), num_bytes
        self._position = 0  # tarfile asks seven times a member, and a file asks the system

    def read(self, size: int = -1) -> bytes:
        left = self._num_bytes - self._position
        data = self._stream.read(left if size < 0 else min(size, left))
        self._position += len(data)
        return data

    @property
    def extent(self) -> Extent | None:
        """The part of a file on a disk that this is; None for what lies elsewhere."""
        outer = self._stream.extent if isinstance(self._stream, Window) else self._file_extent()
        return outer and Extent(outer.descriptor, outer.start + self._start, self._num_bytes)

    def _file_extent(self) -> Extent | None:
        is_local = isinstance(self._stream, io.BufferedReader)
        return Extent(self._stream.fileno(), 0, self._num_bytes) if is_local else None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        assert whence == io.SEEK_SET
        self._position = self._stream.seek(self._start + min(offset, self._num_bytes)) - self._start
        return self._position

    def tell(self) -> int:
        return self._position


@contextmanager
def unpacked(file: IO[bytes], place: str, digest: Digest | None) -> Iterator[IO[bytes]]:
    """Give a file's content from its start, decompressed if it is compressed.

    With a digest every byte is read, and the digest is compared when the block ends without an
    error. Without one, what the block skips in a plain file is not read.

    Raises:
        SourceError: another digest, or more unpacked than MAX_RATIO allows.
    """
    unpacker = unpacker_of(file)
    found = hashlib.new(digest.algorithm, usedforsecurity=False) if digest else None
    watched = Forward(file, found.update) if found else Window(file, _size(file))
    packed = cast(IO[bytes], watched)
    if unpacker is None:
        yield packed
    else:
        stream = unpacker(packed)
        yield cast(IO[bytes], Forward(stream, _RatioGuard(place, packed)))
    if digest and found:
        while packed.read(PIECE_BYTES):
            pass
        digest.compare(place, found.hexdigest(), packed.tell())


def _size(file: IO[bytes]) -> int:
    """In bytes; leaves the file at its start."""
    num_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    return num_bytes


def unpacker_of(file: IO[bytes]) -> Callable[[Any], Any] | None:
    """None for what is not compressed; leaves the file at its start."""
    start = file.read(8)
    file.seek(0)
    return next((unpack for magic, unpack in UNPACKERS.items() if start.startswith(magic)), None)


class _RatioGuard:
    """Stops a decompression bomb: a few bytes that unpack to more than any disk."""

    def __init__(self, place: str, packed: IO[bytes]) -> None:
        self._place, self._packed = place, packed
        self._num_bytes = 0

    def __call__(self, data: bytes) -> None:
        self._num_bytes += len(data)
        limit = max(FREE_BYTES, MAX_RATIO * self._packed.tell())
        if self._num_bytes > limit:
            raise SourceError(
                f"{self._place}: {self._packed.tell()} compressed bytes unpack to more than "
                f"{limit}: over {MAX_RATIO} times as much is a bomb, not an archive of images"
            )
