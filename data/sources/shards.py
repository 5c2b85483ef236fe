"""Data sets that others have cut into files by split: train-00000.tar, train-00000.parquet, ..."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from data.sources.errors import SourceError
from data.sources.places import inside, is_folder, names_in, read_range
from data.sources.source import ByteRange, ListedSource, SourceSample

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


def labelled(
    origin: str, splits: Mapping[str, Sequence[Found]], class_names: tuple[str, ...]
) -> ListedSource:
    """Turn labels as written into labels by `class_names`.

    Without names, those are the labels themselves: names sorted, numbers in their order.

    Raises:
        SourceError: names and numbers mixed, a label outside the class list, fewer than two.
    """
    train, test = splits.values()
    written = {found.label for found in train} | {found.label for found in test}
    if len({type(label) for label in written}) > 1:
        raise SourceError(f"{origin}: some labels are numbers and some are names")
    if not class_names:
        class_names = _names(origin, written)
    ranks: dict[int | str, int] = {name: label for label, name in enumerate(class_names)}
    ranks |= {label: label for label in range(len(class_names))}
    if strange := [f for f in (*train, *test) if f.label not in ranks]:
        raise SourceError(
            f"{strange[0].archive}: {strange[0].name} has label {strange[0].label!r}, one of "
            f"{len(strange)} outside the list of {len(class_names)} classes"
        )
    if len(class_names) < 2:
        raise SourceError(f"{origin}: {len(class_names)} classes: expected at least two")

    def samples(found: Sequence[Found]) -> list[SourceSample]:
        return [SourceSample(f.name, ranks[f.label], f.location, f.archive) for f in found]

    return ListedSource(class_names, samples(train), samples(test))


def _names(origin: str, written: set[int | str]) -> tuple[str, ...]:
    numbers = [label for label in written if isinstance(label, int)]
    if not numbers:
        return tuple(sorted(str(label) for label in written))
    if min(numbers) < 0 or max(numbers) >= 1 << 16:
        raise SourceError(f"{origin}: labels reach from {min(numbers)} to {max(numbers)}")
    width = len(str(max(numbers)))
    return tuple(f"{number:0{width}d}" for number in range(max(numbers) + 1))
