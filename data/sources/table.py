"""Samples in a file instead of objects: a data set has millions, and an object takes 0.4 kB."""

import json
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self, overload

import numpy as np
import numpy.typing as npt

from data.boxes import Annotation, Box
from data.publish import published
from data.sources.source import NO_LABEL, ByteRange, SourceSample

ROW: Final = np.dtype(
    [
        ("text_at", "<i8"),  # where the name begins, the annotation behind it
        ("offset", "<i8"),
        ("num_bytes", "<i8"),
        ("label", "<i4"),
        ("place", "<i4"),
        ("name_bytes", "<u4"),
        ("annotation_bytes", "<u4"),
    ]
)
PACKED_ROW: Final = struct.Struct("<qqqiiII")
ROWS_AT_A_TIME: Final = 4096

Integers = npt.NDArray[np.int64]
Positions = Integers | Sequence[int]


class Place(NamedTuple):
    """Where images lie, for all that share it."""

    path: str  # of a file; or with "/" behind it of a folder, in which files are called as images
    archive: str


class SampleTable(Sequence[SourceSample]):
    """Samples by position. Rows and names are mapped files: memory that the system may take back.

    Args:
        rows: (N,) of ROW.
        text: names and annotations.
        order: (M,) the rows that are given, in this order; None: all.
        labels: (M,) instead of the rows' own.
        cut: characters taken off the front of each name, with all folders that they name.
    """

    def __init__(
        self,
        rows: npt.NDArray[np.void],
        text: bytes | mmap,
        places: Sequence[Place],
        order: Integers | None = None,
        labels: npt.NDArray[np.int32] | None = None,
        cut: int = 0,
    ) -> None:
        self._rows, self._text, self.places = rows, text, places
        self._order, self._labels, self._cut = order, labels, cut

    @classmethod
    def of(cls, samples: Iterable[SourceSample], folder: Path) -> "SampleTable":
        """Give samples as a table, which is written to unnamed files in `folder` if need be."""
        if isinstance(samples, SampleTable):
            return samples
        with TableWriter(folder) as writer:
            return writer.extend(samples).table()

    def __len__(self) -> int:
        return len(self._rows if self._order is None else self._order)

    @overload
    def __getitem__(self, where: int) -> SourceSample: ...
    @overload
    def __getitem__(self, where: slice) -> list[SourceSample]: ...
    def __getitem__(self, where: int | slice) -> SourceSample | list[SourceSample]:
        if isinstance(where, slice):
            assert where.step in (None, 1)
            return list(self._given(where))
        if not 0 <= where < len(self):
            raise IndexError(f"sample {where} of {len(self)}")
        return next(self._given(slice(where, where + 1)))

    def __iter__(self) -> Iterator[SourceSample]:
        return chain.from_iterable(map(self._given, self._pieces()))

    def names(self) -> Iterator[str]:
        for where in self._pieces():
            rows = self._chosen(where)
            starts = (rows["text_at"] + self._cut).tolist()
            ends = (rows["text_at"] + rows["name_bytes"]).tolist()
            for start, end in zip(starts, ends, strict=True):
                yield self._text[start:end].decode()

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        return self._column("label") if self._labels is None else self._labels

    @property
    def num_bytes(self) -> Integers:
        return self._column("num_bytes")

    def _column(self, name: str) -> npt.NDArray[Any]:
        column = self._rows[name]
        return column if self._order is None else column[self._order]

    def only(self, positions: Positions, labels: Sequence[int] | None = None) -> "SampleTable":
        """Give the samples at these positions, with other labels where told; nothing is copied."""
        chosen = np.asarray(positions, np.int64)
        order = chosen if self._order is None else self._order[chosen]
        new = self.labels[chosen] if labels is None else np.asarray(labels, np.int32)
        return SampleTable(self._rows, self._text, self.places, order, new, self._cut)

    def relabelled(self, ranks: Sequence[int]) -> "SampleTable":
        """Give label i the number ranks[i]."""
        labels = np.asarray(ranks, np.int32)[self.labels]
        return SampleTable(self._rows, self._text, self.places, self._order, labels, self._cut)

    def without_start(self, start: str) -> "SampleTable":
        """Take a folder's name off the front of all names, which begin with it."""
        cut = self._cut + len(start.encode())
        return SampleTable(self._rows, self._text, self.places, self._order, self._labels, cut)

    def save(self, folder: Path, name: str) -> None:
        """Write `folder`/NAME.rows and `folder`/NAME.text, in this order, for `open_table`."""
        text_at = 0
        with (
            published(folder / f"{name}.rows", durable=False) as file,
            published(folder / f"{name}.text", durable=False) as text,
        ):
            for where in self._pieces():
                rows = self._chosen(where).copy()
                starts = rows["text_at"] + self._cut
                rows["name_bytes"] -= self._cut
                rows["label"] = self.labels[where]
                lengths = rows["name_bytes"].astype(np.int64) + rows["annotation_bytes"]
                ends = (starts + lengths).tolist()
                pieces = zip(starts.tolist(), ends, strict=True)
                text.writelines(self._text[start:end] for start, end in pieces)
                rows["text_at"] = text_at + np.cumsum(lengths) - lengths
                text_at += int(lengths.sum())
                file.write(rows.tobytes())

    def _pieces(self) -> Iterator[slice]:
        return (slice(i, i + ROWS_AT_A_TIME) for i in range(0, len(self), ROWS_AT_A_TIME))

    def _chosen(self, where: slice) -> npt.NDArray[np.void]:
        return self._rows[where if self._order is None else self._order[where]]

    def _given(self, where: slice) -> Iterator[SourceSample]:
        labels = None if self._labels is None else self._labels[where].tolist()
        for number, row in enumerate(self._chosen(where).tolist()):
            sample = self._sample(*row)
            yield sample if labels is None else sample._replace(label=labels[number])

    def _sample(
        self, at: int, offset: int, num_bytes: int, label: int, place: int, length: int, note: int
    ) -> SourceSample:
        name = self._text[at + self._cut : at + length].decode()
        annotation = _annotation(self._text[at + length : at + length + note]) if note else None
        path, archive = self.places[place]
        if path.endswith("/"):
            path += name.rpartition("/")[2]
        return SourceSample(name, label, ByteRange(path, offset, num_bytes), archive, annotation)


class TableWriter:
    """Appends samples to unnamed files in a folder, which go with the last who reads them."""

    def __init__(self, folder: Path) -> None:
        self._rows, self._text = _unnamed(folder), _unnamed(folder)
        self._numbers: dict[tuple[str, str], int] = {}
        self._text_bytes = 0

    def append(self, sample: SourceSample) -> None:
        name, label, (path, offset, num_bytes), archive, annotation = sample
        text = name.encode()
        note = b"" if annotation is None else json.dumps(annotation).encode()
        row = (offset, num_bytes, label, self._number(path, archive, name), len(text), len(note))
        self._rows.write(PACKED_ROW.pack(self._text_bytes, *row))
        self._text.write(text + note)
        self._text_bytes += len(text) + len(note)

    def append_plain(
        self, place: str, names: Sequence[str], offsets: Sequence[int], sizes: Sequence[int]
    ) -> None:
        """Append unlabelled files of an archive: four times as fast as one by one."""
        texts = [name.encode() for name in names]
        lengths = np.fromiter(map(len, texts), np.int64)
        rows = np.zeros(len(texts), ROW)
        rows["text_at"] = self._text_bytes + np.cumsum(lengths) - lengths
        rows["offset"], rows["num_bytes"], rows["label"] = offsets, sizes, NO_LABEL
        rows["place"] = self._numbers.setdefault((place, place), len(self._numbers))
        rows["name_bytes"] = lengths
        self._rows.write(rows.tobytes())
        self._text.writelines(texts)
        self._text_bytes += int(lengths.sum())

    def extend(self, samples: Iterable[SourceSample]) -> Self:
        for sample in samples:
            self.append(sample)
        return self

    def table(self) -> SampleTable:
        """Give what has been appended; it outlives this writer."""
        self._rows.flush()
        self._text.flush()
        return _mapped(self._rows, self._text, [Place(*place) for place in self._numbers])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for file in (self._rows, self._text):
            with suppress(OSError):  # what is written has been flushed, or is of no use any more
                file.close()

    def _number(self, path: str, archive: str, name: str) -> int:
        """Places are told apart by number; files that are called as their images share one."""
        number = self._numbers.get((path, archive))
        if number is None:
            folder, slash, file_name = path.rpartition("/")
            alike = slash and file_name == name.rpartition("/")[2]
            place = (folder + slash if alike else path, archive)
            number = self._numbers.setdefault(place, len(self._numbers))
        return number


def open_table(folder: Path, name: str, places: Sequence[Place]) -> SampleTable:
    """Map the files that `SampleTable.save` has left."""
    with (folder / f"{name}.rows").open("rb") as rows, (folder / f"{name}.text").open("rb") as text:
        return _mapped(rows, text, places)


def _unnamed(folder: Path) -> IO[bytes]:
    return tempfile.TemporaryFile(dir=folder)


def _mapped(rows: IO[bytes], text: IO[bytes], places: Sequence[Place]) -> SampleTable:
    table = np.frombuffer(_content(rows), ROW)
    return SampleTable(table, _content(text), places)


def _content(file: IO[bytes]) -> bytes | mmap:
    is_empty = file.seek(0, 2) == 0  # which cannot be mapped
    return b"" if is_empty else mmap(file.fileno(), 0, access=ACCESS_READ)


def _annotation(text: bytes) -> Annotation:
    width, height, boxes, present, difficult, is_blacklisted = json.loads(text)
    return Annotation(
        width,
        height,
        tuple(Box(*box) for box in boxes),
        None if present is None else tuple(present),
        tuple(difficult),
        is_blacklisted,
    )
