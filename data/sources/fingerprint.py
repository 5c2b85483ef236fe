"""Telling cheaply whether a source changed after it was staged."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from data.config import DataConfig
from data.sources.registry import source_path

MISSING: Final = "missing"


def fingerprint(config: DataConfig) -> str:
    """Describe the source's present state; MISSING when it is not there.

    Of an archive: its size and time of change. Of a folder: its class folders and their times of
    change, which shows files added, removed and renamed, but not one edited in place.
    """
    if config.source == "builtin":
        return "built in"
    path = source_path(config)
    if path.is_dir():
        states = sorted(_folder_states(path, depth=2))
        return f"{len(states)} folders, {hashlib.sha256(repr(states).encode()).hexdigest()[:16]}"
    if path.exists():
        status = path.stat()
        return f"{status.st_size} bytes, changed {status.st_mtime_ns}"
    return MISSING


def _folder_states(folder: Path, depth: int) -> Iterator[tuple[str, int]]:
    yield str(folder), folder.stat().st_mtime_ns
    if depth:
        with os.scandir(folder) as entries:
            below = [Path(entry.path) for entry in entries if entry.is_dir()]
        for inner in below:
            yield from _folder_states(inner, depth - 1)
