"""Files on a disk or behind a URL: opened, listed and described alike (fsspec does the remote)."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast
from urllib.parse import urlsplit

from data.sources.errors import SourceError

PROTOCOLS: Final = ("file", "memory", "s3", "gs", "https")
DRIVERS: Final = {"s3": "s3fs", "gs": "gcsfs", "https": "aiohttp"}  # packages, installed at need
BLOCK_BYTES: Final = 8 << 20  # read ahead: one request then brings about 70 photographs
# Where the drivers take the address and the credentials from.
ADDRESS: Final = {"s3": "AWS_ENDPOINT_URL"}
CREDENTIALS: Final = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
}
REFUSALS: Final = ("PermissionError", "NoCredentialsError", "PartialCredentialsError")
STATE_KEYS: Final = (
    "size",
    "mtime",
    "created",
    "ETag",
    "etag",
    "md5Hash",
    "LastModified",
    "updated",
)


def is_remote(place: str) -> bool:
    """Tell a URL from a path."""
    return "://" in place


def normal(place: str) -> str:
    """Make a path absolute, so that the working folder does not matter; check a URL.

    Raises:
        SourceError: a protocol that is not read, or credentials in the URL, which would end up in
            every manifest.
    """
    if not is_remote(place):
        return str(Path(place).expanduser().resolve())
    parts = urlsplit(place)
    if parts.scheme not in PROTOCOLS:
        raise SourceError(
            f"{place}: protocol {parts.scheme}:// is not read: want one of {PROTOCOLS}"
        )
    if "@" in parts.netloc:
        raise SourceError(
            f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}: holds credentials: leave "
            "them out of the URL and give them to the driver by its environment variables"
        )
    return parts.path if parts.scheme == "file" else place.rstrip("/")


def inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if is_remote(folder) else os.path.join(folder, name)


def is_file(place: str) -> bool:
    return _kind(place) == "file" if is_remote(place) else os.path.isfile(place)


def is_folder(place: str) -> bool:
    """Tell a folder, or what comes nearest to one in a bucket; behind https there are none."""
    return _kind(place) == "directory" if is_remote(place) else os.path.isdir(place)


def names_in(folder: str) -> list[str]:
    """Names of the files of a folder, sorted."""
    if not is_remote(folder):
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_file())
    with _told(folder):
        entries = _filesystem(folder).ls(folder, detail=True)
        return sorted(e["name"].rpartition("/")[2] for e in entries if e["type"] == "file")


def open_file(place: str) -> IO[bytes]:
    """Open for reading from anywhere; a remote file is read ahead in blocks."""
    if not is_remote(place):
        return open(place, "rb")
    with _told(place):
        file = _filesystem(place).open(place, "rb", block_size=BLOCK_BYTES)
    return cast(IO[bytes], _RemoteFile(place, file))


def read_range(place: str, offset: int, num_bytes: int) -> bytes:
    """Read up to `num_bytes` bytes: fewer where the file ends."""
    if not is_remote(place):
        with open(place, "rb") as file:
            file.seek(offset)
            return file.read(num_bytes)
    with _told(place):
        return bytes(_filesystem(place).cat_file(place, start=offset, end=offset + num_bytes))


def state(place: str) -> str:
    """Describe a file so that another state of it is told apart; its content is not read."""
    if not is_remote(place):
        status = os.stat(place)
        return f"{status.st_size} bytes, changed {status.st_mtime_ns}"
    with _told(place):
        about = _filesystem(place).info(place)
    return ", ".join(f"{key} {about[key]}" for key in STATE_KEYS if key in about)


def _kind(place: str) -> str | None:
    """None when nothing is there; what hinders to find out is an error."""
    with _told(place):
        try:
            return str(_filesystem(place).info(place)["type"])
        except FileNotFoundError as error:  # what fsspec makes of a failed connection too
            if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError):
                return None
            raise


def _filesystem(place: str) -> Any:
    from fsspec import filesystem  # only remote sources need it

    protocol = urlsplit(place).scheme
    try:
        # Listings are not kept: a retry must see what changed.
        return filesystem(protocol, use_listings_cache=False)
    except ImportError as error:
        driver = DRIVERS.get(protocol, protocol)
        raise SourceError(
            f"{place}: reading {protocol}:// needs the package {driver}: pip install {driver}"
        ) from error


class _RemoteFile(io.RawIOBase):
    """A driver's file; what it raises while it is read names the place."""

    def __init__(self, place: str, file: IO[bytes]) -> None:
        self._place, self._file = place, file

    def read(self, size: int = -1) -> bytes:
        with _told(self._place):
            return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Name the place in whatever a driver raises: they have exceptions of their own, all apart."""
    try:
        yield
    except SourceError:
        raise
    except Exception as error:
        raise SourceError(f"{place}: {_told_of(error, urlsplit(place).scheme)}") from error


def _told_of(error: Exception, protocol: str) -> str:
    """What happened and what to do. Told by names, since the drivers need not be installed."""
    address, credentials = ADDRESS.get(protocol), CREDENTIALS.get(protocol)
    kind, cause = type(error).__name__, error.__cause__
    if isinstance(error, FileNotFoundError):
        if cause is None or isinstance(cause, FileNotFoundError):
            return "there is no such file or folder"
        if "NoSuchBucket" in type(cause).__name__:
            also = f" and {address}" if address else ""
            return f"there is no such bucket: check its name{also}"
        # What fsspec makes of a failed connection too.
        return f"cannot be reached: {cause}"
    if credentials and kind in REFUSALS:
        return f"access is refused: {error}: check {credentials}, and what they allow"
    also = f" and {address}" if address else ""
    return f"cannot be read: {kind}: {error}: check the connection{also}, then try again"
