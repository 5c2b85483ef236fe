"""ILSVRC-2012's development kit: its classes, and the labels of the validation images."""

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from data.sources.digests import Digest
from data.sources.errors import SourceError
from data.sources.matlab import Field, MatError, read_structs
from data.sources.strict_tar import tar_members

META: Final = "data/meta.mat"
GROUND_TRUTH: Final = "data/ILSVRC2012_validation_ground_truth.txt"
BLACKLIST: Final = "validation_blacklist.txt"  # of kits of later years and of copies
WNID: Final = re.compile(r"n\d{8}")


class Synset(NamedTuple):
    """One of the classes."""

    wnid: str
    words: str
    num_train_images: int


class Devkit(NamedTuple):
    """What the kit says."""

    synsets: Mapping[int, Synset]  # by ILSVRC2012_ID: only the leaves, which are the classes
    validation_ids: tuple[int, ...]  # ILSVRC2012_ID of each validation image, in their order
    blacklist: frozenset[int]  # numbers of validation images, from 1; empty where not shipped


def read_devkit(place: str, digest: Digest | None = None) -> Devkit:
    """Read ILSVRC2012_devkit_t12.tar.gz.

    ILSVRC2012_ID is not the label that everybody uses: labels are ranks of the sorted WNIDs.

    Raises:
        SourceError: a file is missing or is not what it should be.
    """
    wanted: dict[str, bytes] = {}
    for member in tar_members(place, digest=digest):
        for ending in (META, GROUND_TRUTH, BLACKLIST):
            if member.name.endswith(ending):
                wanted[ending] = member.read()
    for name in (META, GROUND_TRUTH):
        if name not in wanted:
            raise SourceError(f"{place}: holds no {name}: expected ILSVRC-2012's development kit")
    synsets = _synsets(place, wanted[META])
    ids = numbers_of(f"{place}: member {GROUND_TRUTH}", wanted[GROUND_TRUTH])
    for line, number in enumerate(ids, 1):
        if number not in synsets:
            raise SourceError(
                f"{place}: member {GROUND_TRUTH}, line {line}: ILSVRC2012_ID {number} is no class "
                f"of {META}, whose IDs are {min(synsets)} to {max(synsets)}"
            )
    blacklist = frozenset(numbers_of(f"{place}: {BLACKLIST}", wanted.get(BLACKLIST, b"")))
    return Devkit(synsets, tuple(ids), blacklist)


def numbers_of(where: str, text: bytes) -> list[int]:
    """Read one whole number a line."""
    lines = text.decode(errors="replace").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not re.fullmatch(r"\s*\d{1,9}\s*", line):
            raise SourceError(f"{where}, line {number}: expected a whole number, got {line[:40]!r}")
    return [int(line) for line in lines]


def _synsets(place: str, data: bytes) -> dict[int, Synset]:
    try:
        rows = read_structs(data, "synsets")
    except MatError as error:
        raise SourceError(f"{place}: member {META} {error}") from error
    leaves = [row for row in rows if row.get("num_children") == 0]
    synsets = {_number(place, row, "ILSVRC2012_ID"): _synset(place, row) for row in leaves}
    if len(synsets) != len(leaves) or len({synset.wnid for synset in synsets.values()}) != len(
        leaves
    ):
        raise SourceError(f"{place}: member {META}: an ILSVRC2012_ID or WNID comes twice")
    if len(synsets) < 2:
        raise SourceError(f"{place}: member {META}: {len(synsets)} classes: expected 1000")
    return synsets


def _synset(place: str, row: Mapping[str, Field]) -> Synset:
    wnid = row.get("WNID")
    if not isinstance(wnid, str) or not WNID.fullmatch(wnid):
        raise SourceError(f"{place}: member {META}: {wnid!r} is no WNID such as n01440764")
    return Synset(wnid, str(row.get("words") or ""), _number(place, row, "num_train_images"))


def _number(place: str, row: Mapping[str, Field], field: str) -> int:
    value = row.get(field)
    if not isinstance(value, float) or value != int(value):
        raise SourceError(f"{place}: member {META}: {field}={value!r} is no whole number")
    return int(value)
