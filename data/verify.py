"""Proving that staged tars are what the manifest says, to the last bit."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data.manifest import Manifest
from data.staged_tar import DamagedTar, check_bytes


class Damage(NamedTuple):
    """A tar that is not what the manifest says."""

    file: str
    what: str  # the message


def damaged_tars(folder: Path, manifest: Manifest) -> Iterator[Damage]:
    """Read all tars of a staged folder, in their order, and yield those that are damaged."""
    for entry in manifest.entries:
        try:
            check_bytes(folder, entry)
        except DamagedTar as error:
            yield Damage(entry.file, str(error))
