"""Tables of what was staged: classes, sizes, and what was left out."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from data.duplicates import Copy, Duplicate
from data.manifest import SIDE_EDGES, Manifest
from tasks.report.tables import Row

BAR_CHARS: Final = 20  # of the longest bar
MAX_DUPLICATES: Final = 1000  # rows; all are in the staged folder


def class_rows(manifest: Manifest) -> list[Row]:
    """One row for each class, in the order of labels."""
    counts = manifest.class_counts
    longest = max(counts.train, default=0)
    return [
        {
            "label": label,
            "class": name,
            "training images": f"{train:,}",
            "": _bar(train, longest),
            "test images": f"{test:,}",
        }
        for label, (name, train, test) in enumerate(
            zip(manifest.class_names, counts.train, counts.test, strict=True)
        )
    ]


def side_rows(manifest: Manifest) -> list[Row]:
    """One row for each range of smallest sides that holds an image."""
    by_tar = zip(*(entry.side_counts for entry in manifest.entries), strict=True)
    counts = [sum(of_tars) for of_tars in by_tar]
    bounds = [
        f"below {SIDE_EDGES[0]}",
        *(f"{a} to {b - 1}" for a, b in pairwise(SIDE_EDGES)),
        f"{SIDE_EDGES[-1]} or more",
    ]
    return [
        {"smallest side, pixels": name, "images": f"{count:,}", "": _bar(count, max(counts))}
        for name, count in zip(bounds, counts, strict=False)
        if count
    ]


def quarantine_rows(manifest: Manifest) -> list[Row]:
    """One row for each image that was left out."""
    return [
        {"archive": bad.archive, "member": bad.member, "reason": bad.reason}
        for bad in manifest.quarantined
    ]


def duplicate_rows(duplicates: Sequence[Duplicate]) -> list[Row]:
    """One row for each content of several images, with the first of each split, or the first two.

    Those that both splits have come first, as in the list.
    """
    return [
        {
            "SHA-256": found.sha256[:12],
            "in training": found.num_train,
            "in test": found.num_test,
            "one": _told(found.copies[0]),
            "another": _told(_another(found.copies)),
        }
        for found in duplicates[:MAX_DUPLICATES]
    ]


def data_tables(manifest: Manifest, duplicates: Sequence[Duplicate]) -> dict[str, list[Row]]:
    """All of them by title."""
    return {
        "Images of each class": class_rows(manifest),
        "Smallest sides of the images": side_rows(manifest),
        "Images left out": quarantine_rows(manifest),
        "Images with the same bytes": duplicate_rows(duplicates),
    }


def _another(copies: Sequence[Copy]) -> Copy:
    """The first of the other split, if there is any."""
    others = (copy for copy in copies if copy.split != copies[0].split)
    return next(others, copies[1])


def _told(copy: Copy) -> str:
    return f"{copy.split}, {copy.class_name}: {copy.member} of {copy.archive}"


def _bar(count: int, longest: int) -> str:
    return "█" * -(-count * BAR_CHARS // max(1, longest))
