"""Files that are either complete or absent: written aside, synced, renamed."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

PARTIAL: Final = ".partial"


@contextmanager
def published(path: Path, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a new file that takes the name `path` when the block ends without an error.

    Order: fsync the file, rename it over `path`, fsync the folder. So after a crash `path` is the
    old file, or absent, or the whole new one. The aside name is unique, so two writers of the same
    path cannot mix: the later rename wins. Not `durable`: without the two fsyncs, for what may be
    lost or torn when the power fails, but not when a process does.
    """
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        with aside.open("xb+") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        error.add_note(f"while writing {path}, which is left as it was")
        with suppress(FileNotFoundError):
            aside.unlink()
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries (names created, renamed, removed) durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partials(folder: Path) -> None:
    """Delete what killed writers left behind; call it only while nobody writes in `folder`."""
    for leftover in folder.glob(f".*{PARTIAL}"):
        leftover.unlink(missing_ok=True)
