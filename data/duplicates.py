"""Images whose bytes occur more than once in a staged data set: counted, and listed by content.

They are no error: ImageNet has some too. But a test image that was trained on flatters the error.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from data.image_digests import DIGEST_BYTES, Digests, read_digests
from data.listing import Listing
from data.manifest import DuplicateCounts, Manifest, TarEntry
from data.plan import Plans
from data.publish import published
from data.sources.source import SPLITS, SourceSample, Split
from data.sources.table import Integers

LIST: Final = "duplicates.jsonl"  # one row a content, those in both splits first
MAX_LISTED: Final = 10_000  # contents; all are counted
MAX_NAMED: Final = 2  # images of one content, of each split


@dataclass(frozen=True)
class Copy:
    """One of several images with the same bytes."""

    split: Split
    class_name: str
    archive: str  # or folder
    member: str  # its name in the source


@dataclass(frozen=True)
class Duplicate:
    """One content and the images that have it, those of the training set first."""

    sha256: str
    num_train: int
    num_test: int
    copies: tuple[Copy, ...]  # the first two of each split


_ADAPTER: Final = TypeAdapter(Duplicate)


class Repeated(NamedTuple):
    """Images that are not the only ones with their bytes, grouped by these; G groups of M images.

    A position counts the training set's images and then the test set's, in the order of the tars.
    """

    positions: Integers  # (M,) ascending in each group
    digests: Digests  # (M,)
    starts: Integers  # (G,) where each group begins
    sizes: Integers  # (G,)


def note_duplicates(
    folder: Path,
    listing: Listing,
    work: Path,
    plans: Plans,
    entries: Iterable[TarEntry],
    before: Manifest | None,
) -> DuplicateCounts | None:
    """Count the duplicates of finished tars and list them in `folder`/LIST, if there are any.

    Tars that came out with the bytes they had before leave everything as it was.
    """
    by_file = {entry.file: entry for entry in entries}
    if before is not None and {e.file: e.sha256 for e in before.entries} == {
        file: entry.sha256 for file, entry in by_file.items()
    }:
        return before.duplicates
    in_order = [plan for split in SPLITS for plan in plans[split]]
    num_train, num_test = (sum(plan.num_samples for plan in plans[split]) for split in SPLITS)
    repeated = find_repeated(
        lambda: (read_digests(plan, by_file[plan.path.name]) for plan in in_order),
        num_train + num_test,
    )
    num_in_train = _num_in_train(repeated, num_train)
    _write_list(folder / LIST, repeated, num_in_train, _namer(listing, work, num_train))
    return _counted(num_in_train, repeated.sizes - num_in_train)


def find_repeated(read: Callable[[], Iterable[Digests]], num_images: int) -> Repeated:
    """Find the digests that occur more than once; whole ones are compared.

    Their first 8 bytes are sorted first: 8 bytes of memory an image. What is not alone in these
    is read again, whole: 80 bytes for each.

    Args:
        read: gives the digests of all images, some at a time; the same at each call.
    """
    keys = np.empty(num_images, np.uint64)
    start = 0
    for digests in read():
        keys[start : start + len(digests)] = _keys(digests)
        start += len(digests)
    assert start == num_images
    keys.sort()
    again = keys[1:][keys[1:] == keys[:-1]]
    del keys
    shared = again[_is_first(again)]
    positions, digests = _sharing(read(), shared)
    order = np.argsort(digests, kind="stable")
    positions, digests = positions[order], digests[order]
    starts = np.flatnonzero(_is_first(digests))
    sizes = np.diff(np.append(starts, len(digests)))
    alone = np.repeat(sizes == 1, sizes)  # the same 8 bytes, but not the same 32
    sizes = sizes[sizes > 1]
    return Repeated(positions[~alone], digests[~alone], np.cumsum(sizes) - sizes, sizes)


def read_duplicates(folder: Path) -> list[Duplicate]:
    """What is listed in a staged folder; nothing if it has no list.

    Raises:
        ValueError: the list was damaged or written by hand.
    """
    path = folder / LIST
    try:
        return [_ADAPTER.validate_json(line) for line in path.read_bytes().splitlines()]
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise ValueError(
            f"{path}: is no list of duplicates ({error}): delete it; the manifest has the counts"
        ) from error


def _is_first(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Of each run of equal values."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _keys(digests: Digests) -> npt.NDArray[np.uint64]:
    """The first 8 bytes of each."""
    return digests.view(np.uint64)[:: DIGEST_BYTES // 8]


def _sharing(pieces: Iterable[Digests], shared: npt.NDArray[np.uint64]) -> tuple[Integers, Digests]:
    """Positions and digests of the images whose key is among the `shared` ones, sorted."""
    positions, found = [np.empty(0, np.int64)], [np.empty(0, f"S{DIGEST_BYTES}")]
    start = 0
    for digests in pieces if len(shared) else ():
        keys = _keys(digests)
        nearest = shared[np.searchsorted(shared, keys).clip(max=len(shared) - 1)]
        hits = np.flatnonzero((nearest == keys) & (digests != b""))  # which is LEFT_OUT
        positions.append(start + hits)
        found.append(digests[hits])
        start += len(digests)
    return np.concatenate(positions), np.concatenate(found)


def _num_in_train(repeated: Repeated, num_train: int) -> Integers:
    """Of each group, (G,)."""
    before: Integers = np.append(0, np.cumsum(repeated.positions < num_train))
    num: Integers = before[repeated.starts + repeated.sizes] - before[repeated.starts]
    return num


def _counted(num_in_train: Integers, num_in_test: Integers) -> DuplicateCounts:
    return DuplicateCounts(
        test_in_train=int(num_in_test[num_in_train > 0].sum()),
        again_in_train=int((num_in_train - 1).clip(min=0).sum()),
        again_in_test=int((num_in_test - 1).clip(min=0).sum()),
    )


def _namer(listing: Listing, work: Path, num_train: int) -> Callable[[int], Copy]:
    tables = {split: listing.table(work, split) for split in SPLITS}

    def named(position: int) -> Copy:
        split: Split = "train" if position < num_train else "test"
        sample: SourceSample = tables[split][position - (0 if split == "train" else num_train)]
        return Copy(split, listing.class_names[sample.label], sample.archive, sample.name)

    return named


def _write_list(
    path: Path, repeated: Repeated, num_in_train: Integers, named: Callable[[int], Copy]
) -> None:
    if not len(repeated.sizes):
        path.unlink(missing_ok=True)
        return
    in_both = (num_in_train > 0) & (num_in_train < repeated.sizes)
    order = np.argsort(~in_both, kind="stable")[:MAX_LISTED].tolist()
    with published(path) as file:
        for group in order:
            row = _ADAPTER.dump_python(_duplicate(repeated, group, int(num_in_train[group]), named))
            file.write(json.dumps(row).encode() + b"\n")


def _duplicate(
    repeated: Repeated, group: int, num_train: int, named: Callable[[int], Copy]
) -> Duplicate:
    start, size = int(repeated.starts[group]), int(repeated.sizes[group])
    positions = repeated.positions[start : start + size].tolist()
    copies = map(named, _few(positions, num_train))
    digest = bytes(repeated.digests[start]).ljust(DIGEST_BYTES, b"\0")
    return Duplicate(digest.hex(), num_train, size - num_train, tuple(copies))


def _few(positions: Sequence[int], num_train: int) -> Iterator[int]:
    yield from positions[:num_train][:MAX_NAMED]
    yield from positions[num_train:][:MAX_NAMED]
