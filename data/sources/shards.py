"""Data sets that others have cut into files by split: train-00000.tar, train-00000.parquet, ..."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from data.sources.errors import SourceError
from data.sources.places import inside, is_folder, names_in, read_range
from data.sources.source import ByteRange, ListedSource, SourceSample
from data.sources.table import SampleTable, TableWriter

CLASSES: Final = "classes.txt"  # beside the files: one name a line, in the order of the labels
MAX_LIST_BYTES: Final = 1 << 22


class Found(NamedTuple):
    """An image with its label as it was written: a number, or the class's name."""

    name: str
    label: int | str
    location: ByteRange
    archive: str


def files_of(folder: str, split: str, endings: tuple[str, ...]) -> list[str]:
    """Name the files of a split, in order.

    Raises:
        SourceError: no such folder, or none of its files is called SPLIT*ENDING.
    """
    wanted = f"{split}*{endings[0]}"
    if not is_folder(folder):
        raise SourceError(f"data.path={folder} is no folder: expected one with {wanted}")
    names = [n for n in names_in(folder) if n.startswith(split) and n.endswith(endings)]
    if not names:
        raise SourceError(
            f"{folder}: holds no {wanted}: set data.train_split and data.test_split to what "
            "the names of the files start with"
        )
    return [inside(folder, name) for name in names]


def class_list(folder: str) -> tuple[str, ...]:
    """The names in classes.txt; () without such a file."""
    if CLASSES not in names_in(folder):
        return ()
    text = read_range(inside(folder, CLASSES), 0, MAX_LIST_BYTES).decode(errors="replace")
    return tuple(line.strip() for line in text.splitlines() if line.strip())


class FoundSamples:
    """The images of the splits, in tables; labels are numbered as they come."""

    def __init__(self) -> None:
        self._numbers: dict[int | str, int] = {}
        self._tables: list[SampleTable] = []

    def add_split(self, found: Iterable[Found], work: Path) -> None:
        numbers = self._numbers
        with TableWriter(work) as writer:
            for name, label, location, archive in found:
                number = numbers.setdefault(label, len(numbers))
                writer.append(SourceSample(name, number, location, archive))
            self._tables.append(writer.table())

    def labelled(self, origin: str, class_names: tuple[str, ...]) -> ListedSource:
        """Turn labels as written into labels by `class_names`.

        Without names, those are the labels themselves: names sorted, numbers in their order.

        Raises:
            SourceError: names and numbers mixed, a label outside the class list, fewer than two.
        """
        written = self._numbers.keys()
        if len({type(label) for label in written}) > 1:
            raise SourceError(f"{origin}: some labels are numbers and some are names")
        if not class_names:
            class_names = _names(origin, written)
        ranks: dict[int | str, int] = {name: label for label, name in enumerate(class_names)}
        ranks |= {label: label for label in range(len(class_names))}
        self._require_listed(ranks, len(class_names))
        if len(class_names) < 2:
            raise SourceError(f"{origin}: {len(class_names)} classes: expected at least two")
        of_numbers = [ranks[label] for label in written]
        return ListedSource(class_names, *(table.relabelled(of_numbers) for table in self._tables))

    def _require_listed(self, ranks: Mapping[int | str, int], num_classes: int) -> None:
        strange = {number: label for label, number in self._numbers.items() if label not in ranks}
        if not strange:
            return
        hits = [np.flatnonzero(np.isin(table.labels, list(strange))) for table in self._tables]
        first = next(t[int(hit[0])] for t, hit in zip(self._tables, hits, strict=True) if len(hit))
        raise SourceError(
            f"{first.archive}: {first.name} has label {strange[first.label]!r}, one of "
            f"{sum(map(len, hits))} outside the list of {num_classes} classes"
        )


def _names(origin: str, written: Collection[int | str]) -> tuple[str, ...]:
    numbers = [label for label in written if isinstance(label, int)]
    if not numbers:
        return tuple(sorted(str(label) for label in written))
    if min(numbers) < 0 or max(numbers) >= 1 << 16:
        raise SourceError(f"{origin}: labels reach from {min(numbers)} to {max(numbers)}")
    width = len(str(max(numbers)))
    return tuple(f"{number:0{width}d}" for number in range(max(numbers) + 1))
