"""Telling cheaply whether a source changed after it was staged."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from data.config import DataConfig
from data.sources.errors import SourceError
from data.sources.places import is_file, is_folder, is_remote, state
from data.sources.registry import source_files, source_path

MISSING: Final = "missing"


def fingerprint(config: DataConfig) -> str:
    """Describe the source's present state; MISSING when it is not there.

    Of archives: their sizes and times of change, or what a remote store says of them. Of a folder
    of images: its class folders and their times of change, which shows files added, removed and
    renamed, but not one edited in place.
    """
    if config.source == "builtin":
        return "built in"
    place = source_path(config)
    if is_file(place):
        return state(place)
    if not is_folder(place):
        return MISSING
    try:
        files = source_files(config)
        states = None if files is None else [state(file) for file in files]
    except (SourceError, FileNotFoundError):  # some are gone
        return MISSING
    if states is not None:
        return f"{len(states)} files, {_short(states)}"
    if is_remote(place):
        return "remote folder"
    folders = sorted(_folder_states(Path(place), depth=2))
    return f"{len(folders)} folders, {_short(folders)}"


def _short(states: Sequence[object]) -> str:
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _folder_states(folder: Path, depth: int) -> Iterator[tuple[str, int]]:
    yield str(folder), folder.stat().st_mtime_ns
    if depth:
        with os.scandir(folder) as entries:
            below = [Path(entry.path) for entry in entries if entry.is_dir()]
        for inner in below:
            yield from _folder_states(inner, depth - 1)
