"""What a source listed, kept beside its spool: so that a killed run need not read it again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from data.publish import published
from data.sources.registry import SPOOL
from data.sources.source import ListedSource, Source

LISTING: Final = "listing.json"


@dataclass(frozen=True)
class _Listing:
    fingerprint: str
    spool_bytes: int
    source: ListedSource


_ADAPTER: Final = TypeAdapter(_Listing)


def keep_listing(work: Path, fingerprint: str, source: Source) -> None:
    """Remember a source whose images lie in the spool; others are listed quickly again."""
    spool = work / SPOOL
    if isinstance(source, ListedSource) and spool.exists() and spool.stat().st_size:
        listing = _Listing(fingerprint, spool.stat().st_size, source)
        with published(work / LISTING, durable=False) as file:
            file.write(_ADAPTER.dump_json(listing))


def kept_listing(work: Path, fingerprint: str) -> ListedSource | None:
    """The source as it was listed in this state, if its spool is still there, whole."""
    try:
        listing = _ADAPTER.validate_json((work / LISTING).read_bytes())
        num_bytes = (work / SPOOL).stat().st_size
    except (FileNotFoundError, ValidationError):
        return None
    if (listing.fingerprint, listing.spool_bytes) != (fingerprint, num_bytes):
        return None
    return listing.source


def drop_spool(work: Path) -> None:
    """Give back the room that the spool takes."""
    (work / LISTING).unlink(missing_ok=True)
    (work / SPOOL).unlink(missing_ok=True)
