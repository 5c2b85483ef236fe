"""Staged data that stays elsewhere: its tars are fetched when due, and few are kept here."""

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import TypeAdapter

from data.manifest import TarEntry
from data.publish import published
from data.sources.places import inside, open_file
from data.tar_scan import DamagedTar, require_sound, scan

FILE: Final = "elsewhere.json"
PIECE_BYTES: Final = 1 << 20
REMEDY: Final = "upload it again"


class Elsewhere(NamedTuple):
    """Where the tars of a local folder come from."""

    url: str
    cache_bytes: int  # of tars kept here


_ADAPTER: Final = TypeAdapter(Elsewhere)


def write_elsewhere(folder: Path, elsewhere: Elsewhere) -> None:
    """Declare that the folder's tars come from there."""
    with published(folder / FILE) as file:
        file.write(_ADAPTER.dump_json(elsewhere))


def is_elsewhere(folder: Path) -> bool:
    return (folder / FILE).exists()


@contextmanager
def brought(folder: Path, entry: TarEntry) -> Iterator[None]:
    """Have a tar here during the block; fetched, if the folder's data lies elsewhere.

    Then the oldest make room, and any other process waits: else readers of a small cache would
    take each other's tars away before they are opened.

    Raises:
        SourceError: it cannot be reached.
        DamagedTar: it is not what the manifest says.
    """
    if not is_elsewhere(folder):
        yield
        return
    with (folder / FILE).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not (folder / entry.file).exists():
            url, cache_bytes = _ADAPTER.validate_json(file.read())
            _make_room(folder, cache_bytes - entry.num_bytes)
            fetch_tar(inside(url, entry.file), folder, entry)
        yield


def fetch_tar(place: str, folder: Path, entry: TarEntry) -> None:
    """Copy one tar, compare it with the manifest, and only then give it its name.

    Raises:
        DamagedTar: any difference.
    """
    with open_file(place) as source, published(folder / entry.file) as file:
        shutil.copyfileobj(source, file, PIECE_BYTES)
        file.flush()
        if file.tell() != entry.num_bytes:
            raise DamagedTar(
                f"{place}: has {file.tell()} bytes, the manifest says {entry.num_bytes}: {REMEDY}"
            )
        require_sound(scan(file), place, entry, REMEDY)


def _make_room(folder: Path, max_bytes: int) -> None:
    """Remove the tars that came first: an epoch reads in a cycle, where those are due last."""
    tars = []
    for path in folder.glob("*.tar"):
        status = path.stat()
        tars.append((status.st_mtime_ns, status.st_size, path))
    num_bytes = sum(size for _, size, _ in tars)
    for _, size, path in sorted(tars):
        if num_bytes <= max_bytes:
            return
        path.unlink()
        num_bytes -= size
