"""The manifest of a data set whose tars are all finished."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from data.config import DataConfig
from data.listing import Listing
from data.manifest import ClassCounts, DuplicateCounts, Manifest, TarEntry
from data.plan import Plans, TarPlan
from data.sources.registry import origin
from data.sources.source import SPLITS, SourceError, Split


def manifest_of(
    config: DataConfig,
    staging_digest: str,
    listing: Listing,
    work: Path,
    plans: Plans,
    entries: Iterable[TarEntry],
    duplicates: DuplicateCounts | None,
) -> Manifest:
    """Sum the finished tars up.

    Raises:
        SourceError: no image of the training set can be used, so there is no mean.
    """
    by_file = {entry.file: entry for entry in entries}
    train, test = (tuple(by_file[plan.path.name] for plan in plans[split]) for split in SPLITS)
    return Manifest(
        name=config.name,
        class_names=listing.class_names,
        mean_rgb=_mean_rgb(train, config),
        train=train,
        test=test,
        class_counts=ClassCounts(
            *(_class_counts(listing, work, split, plans[split], by_file) for split in SPLITS)
        ),
        max_pixels=config.staging.max_pixels,
        source=origin(config),
        fingerprint=listing.fingerprint,
        staging_digest=staging_digest,
        duplicates=duplicates,
    )


def _class_counts(
    listing: Listing,
    work: Path,
    split: Split,
    plans: Sequence[TarPlan],
    entries: Mapping[str, TarEntry],
) -> tuple[int, ...]:
    labels = listing.table(work, split).labels
    counts = np.bincount(labels, minlength=len(listing.class_names))
    for plan in plans:
        bad = {image.member for image in entries[plan.path.name].quarantined}
        if bad:
            labels_of_bad = [sample.label for sample in plan.samples if sample.name in bad]
            counts -= np.bincount(labels_of_bad, minlength=len(counts))
    return tuple(counts.tolist())


def _mean_rgb(entries: Sequence[TarEntry], config: DataConfig) -> tuple[float, float, float]:
    num_pixels = sum(entry.num_pixels for entry in entries)
    if num_pixels == 0:
        raise SourceError(f"{origin(config)}: no usable image in the training set")
    red, green, blue = (sum(entry.rgb_sums[c] for entry in entries) / num_pixels for c in range(3))
    return red, green, blue
