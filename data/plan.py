"""Which sample goes into which tar: decided by a seed, before anything is written."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple, get_args

from data.boxes import Annotation
from data.config import StagingConfig
from data.shrink import Shrinking
from data.sources.source import ByteRange, Source, SourceSample, Split
from data.tar_format import BLOCK_BYTES

SPLITS: Final[tuple[Split, ...]] = get_args(Split)
BYTES_BESIDE: Final = 7 * BLOCK_BYTES  # of a sample: three headers, label, JSON, padding
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
    """All that one process needs to make one tar, alone."""

    path: Path
    samples: tuple[PlannedSample, ...]
    class_names: tuple[str, ...]
    max_pixels: int
    decode_all: bool
    shrinking: Shrinking | None
    fingerprint: str  # of the source

    @property
    def num_bytes(self) -> int:
        """About the size of the tar, rather more than less."""
        return sum(sample.location.num_bytes + BYTES_BESIDE for sample in self.samples)

    @property
    def digest(self) -> str:
        """Of everything that decides the tar's content; where the images lie does not."""
        decisive = (
            self.class_names,
            self.max_pixels,
            self.decode_all,
            self.shrinking,
            self.fingerprint,
        )
        digest = hashlib.sha256(repr(decisive).encode())
        for key, name, label, location, _, annotation in self.samples:
            digest.update(repr((key, name, label, location.num_bytes, annotation)).encode())
        return digest.hexdigest()


def plan_tars(
    source: Source, config: StagingConfig, folder: Path, fingerprint: str
) -> dict[Split, tuple[TarPlan, ...]]:
    """Deal the samples of both splits out to tars of nearly equal size, shuffled.

    The order is that of SHA-256(seed, split, name): the same on every machine and with every
    library version, whatever order the source lists its samples in.
    """
    side = config.smallest_side
    shrinking = None if side is None else Shrinking(side, config.jpeg_quality)
    limits = {"train": config.max_train_samples, "test": config.max_test_samples}
    return {
        split: tuple(
            TarPlan(
                folder / f"{split}-{number:06d}.tar",
                samples,
                source.class_names,
                config.max_pixels,
                config.decode_all,
                shrinking,
                fingerprint,
            )
            for number, samples in enumerate(
                _dealt(
                    _planned(source, split, config.shuffle_seed, limits[split]),
                    config.samples_per_tar,
                )
            )
        )
        for split in SPLITS
    }


def _planned(source: Source, split: Split, seed: int, limit: int | None) -> list[PlannedSample]:
    def place(sample: SourceSample) -> bytes:
        return hashlib.sha256(f"{seed}/{split}/{sample.name}".encode()).digest()

    shuffled = sorted(source.samples(split), key=place)[:limit]
    return [
        PlannedSample(_key(index, sample.name), *sample) for index, sample in enumerate(shuffled)
    ]


def _key(index: int, name: str) -> str:
    """Unique by its number; dots would end the key for WebDataset, so they are replaced."""
    stem = re.sub(r"\.[^./]*$", "", name)
    return f"{index:08d}_{re.sub('[^A-Za-z0-9-]+', '_', stem)[-KEY_NAME_CHARS:]}"


def _dealt(
    samples: Sequence[PlannedSample], samples_per_tar: int
) -> list[tuple[PlannedSample, ...]]:
    num_tars = -(-len(samples) // samples_per_tar)
    bounds = [len(samples) * i // max(1, num_tars) for i in range(num_tars + 1)]
    return [tuple(samples[a:b]) for a, b in pairwise(bounds)]
