"""Proving that staged tars are what the manifest says, to the last bit."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from data.manifest import Manifest, TarEntry
from data.staged_tar import DamagedTar, check_bytes, members

SHOWN: Final = 5  # samples named in a message


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
            yield Damage(entry.file, f"{error}{_samples_hit(folder, entry)}")


def _samples_hit(folder: Path, entry: TarEntry) -> str:
    """Name the samples whose bytes differ from their own digest, as far as headers lead."""
    keys: list[str] = []
    ended = ""
    try:
        with (folder / entry.file).open("rb") as file:
            found = b""
            for name, offset, num_bytes in members(file):
                file.seek(offset)
                data = file.read(num_bytes)
                key, _, extension = name.rpartition(".")
                if extension == "json":
                    if json.loads(data)["sha256"] != hashlib.sha256(found).hexdigest():
                        keys.append(key)
                elif extension != "cls":
                    found = data
    except (OSError, ValueError, KeyError, TypeError):
        ended = "; unreadable from there on" if keys else "; its structure is unreadable"
    hit = f"; samples hit: {', '.join(keys[:SHOWN])}" if keys else ""
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return hit + more + ended
