"""Which sample goes into which tar: decided by a seed, before anything is written."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from data.boxes import Annotation
from data.config import StagingConfig
from data.listing import Listing, read_listing
from data.shrink import Shrinking
from data.sources.source import SPLITS, ByteRange, Split
from data.sources.table import Integers
from data.tar_format import BLOCK_BYTES

BYTES_BESIDE: Final = 7 * BLOCK_BYTES  # of a sample: three headers, label, JSON, padding
ENDING: Final = re.compile(r"\.[^./]*$")
NOT_FOR_KEYS: Final = re.compile("[^A-Za-z0-9-]+")
KEY_NAME_CHARS: Final = 60  # of the original name kept in a key; a tar header holds 100


class PlannedSample(NamedTuple):
    key: str
    name: str  # of the original file or member
    label: int
    location: ByteRange
    archive: str
    annotation: Annotation | None


@dataclass(frozen=True)
class TarPlan:
    """All that one process needs to make one tar, alone; the samples are a range of the listing."""

    path: Path
    listing: Path  # the folder that it lies in
    split: Split
    start: int
    stop: int
    num_bytes: int  # about the size of the tar, rather more than less
    max_pixels: int
    decode_all: bool
    shrinking: Shrinking | None
    fingerprint: str  # of the source

    @property
    def num_samples(self) -> int:
        return self.stop - self.start

    @property
    def class_names(self) -> tuple[str, ...]:
        return read_listing(self.listing).class_names

    @property
    def samples(self) -> list[PlannedSample]:
        """Read anew each time: whoever plans has thousands of tars."""
        table = read_listing(self.listing).table(self.listing, self.split)
        return [
            PlannedSample(_key(self.start + number, sample.name), *sample)
            for number, sample in enumerate(table[self.start : self.stop])
        ]

    @property
    def digest(self) -> str:
        """Of everything that decides the tar's content; where the images lie does not."""
        return self.digest_of(self.samples)

    def digest_of(self, samples: Sequence[PlannedSample]) -> str:
        """The digest, for who has read the plan's samples already."""
        decisive = (
            self.class_names,
            self.max_pixels,
            self.decode_all,
            self.shrinking,
            self.fingerprint,
        )
        digest = hashlib.sha256(repr(decisive).encode())
        for key, name, label, location, _, annotation in samples:
            digest.update(repr((key, name, label, location.num_bytes, annotation)).encode())
        return digest.hexdigest()


Plans = Mapping[Split, tuple[TarPlan, ...]]


def plan_tars(listing: Listing, config: StagingConfig, folder: Path, work: Path) -> Plans:
    """Deal the samples of both splits out to tars of nearly equal size, in the listing's order."""
    side = config.smallest_side
    shrinking = None if side is None else Shrinking(side, config.jpeg_quality)
    return {
        split: tuple(
            TarPlan(
                folder / f"{split}-{number:06d}.tar",
                work,
                split,
                start,
                stop,
                num_bytes,
                config.max_pixels,
                config.decode_all,
                shrinking,
                listing.fingerprint,
            )
            for number, (start, stop, num_bytes) in enumerate(
                _dealt(listing.table(work, split).num_bytes, config.samples_per_tar)
            )
        )
        for split in SPLITS
    }


def _dealt(num_bytes: Integers, samples_per_tar: int) -> Iterator[tuple[int, int, int]]:
    """Where each tar's samples begin and end, and the tar's size."""
    num_samples = len(num_bytes)
    num_tars = -(-num_samples // samples_per_tar)
    bounds = [num_samples * i // max(1, num_tars) for i in range(num_tars + 1)]
    for start, stop in pairwise(bounds):
        of_images = int(num_bytes[start:stop].sum())
        yield start, stop, of_images + BYTES_BESIDE * (stop - start)


def _key(index: int, name: str) -> str:
    """Unique by its number; dots would end the key for WebDataset, so they are replaced."""
    stem = ENDING.sub("", name)
    return f"{index:08d}_{NOT_FOR_KEYS.sub('_', stem)[-KEY_NAME_CHARS:]}"
