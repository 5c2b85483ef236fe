"""The shuffled list of a source's samples, in files that every process maps."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from data.publish import published
from data.sources.registry import SPOOL
from data.sources.source import SPLITS, Source, Split
from data.sources.table import Integers, Place, SampleTable, open_table

LISTING: Final = "listing.json"
DIGEST_BYTES: Final = 16  # of SHA-256, to sort by: no two are alike


@dataclass(frozen=True)
class Listing:
    """What is known of all samples; they themselves lie in tables beside it, shuffled."""

    fingerprint: str  # of the source
    class_names: tuple[str, ...]
    places: Mapping[Split, tuple[Place, ...]]
    spool_bytes: int
    digest: str  # of the tables, where there is a spool

    def table(self, work: Path, split: Split) -> SampleTable:
        return open_table(work, split, self.places[split])


_ADAPTER: Final = TypeAdapter(Listing)


def make_listing(
    work: Path, fingerprint: str, source: Source, seed: int, limits: Mapping[Split, int | None]
) -> Listing:
    """List a source in a folder, shuffled; of each split the first samples, if it has a limit.

    The order is that of SHA-256(seed, split, name): the same on every machine and with every
    library version, whatever order the source lists its samples in. Memory: 30 bytes a sample,
    while they are sorted.
    """
    places: dict[Split, tuple[Place, ...]] = {}
    for split in SPLITS:
        table = SampleTable.of(source.samples(split), work)
        order = _shuffled(table, f"{seed}/{split}/")[: limits[split]]
        table.only(order).save(work, split)
        places[split] = tuple(table.places)
    spool_bytes = _spool_bytes(work)
    digest = _digest(work) if spool_bytes else ""
    listing = Listing(fingerprint, source.class_names, places, spool_bytes, digest)
    with published(work / LISTING, durable=False) as file:
        file.write(_ADAPTER.dump_json(listing))
    return listing


def _shuffled(table: SampleTable, start: str) -> Integers:
    digests = bytearray()
    for name in table.names():
        digests += hashlib.sha256(f"{start}{name}".encode()).digest()[:DIGEST_BYTES]
    # As fixed strings they are compared byte by byte, as whole digests would be.
    return np.argsort(np.frombuffer(digests, f"S{DIGEST_BYTES}"), kind="stable")


def kept_listing(work: Path, fingerprint: str) -> Listing | None:
    """The source as it was listed in this state, if its spool is still there, whole.

    Sources without a spool are listed quickly again, and may have changed in place.
    """
    try:
        listing = _ADAPTER.validate_json((work / LISTING).read_bytes())
        spool_bytes = _spool_bytes(work)
        sound = spool_bytes > 0 and listing.digest == _digest(work)
    except (FileNotFoundError, ValidationError):
        return None
    same = (listing.fingerprint, listing.spool_bytes) == (fingerprint, spool_bytes)
    return listing if sound and same else None


def read_listing(work: Path) -> Listing:
    """The listing that a plan belongs to; read once per process and state of the file."""
    status = (work / LISTING).stat()
    return _read(work, (status.st_mtime_ns, status.st_ino))


@lru_cache(maxsize=1)
def _read(work: Path, state: tuple[int, int]) -> Listing:
    return _ADAPTER.validate_json((work / LISTING).read_bytes())


def drop_spool(work: Path) -> None:
    """Give back the room that the spool takes."""
    (work / LISTING).unlink(missing_ok=True)
    (work / SPOOL).unlink(missing_ok=True)


def _spool_bytes(work: Path) -> int:
    spool = work / SPOOL
    return spool.stat().st_size if spool.exists() else 0


def _digest(work: Path) -> str:
    found = hashlib.sha256()
    for split in SPLITS:
        for ending in (".rows", ".text"):
            with (work / f"{split}{ending}").open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
