"""Parquet files with image bytes, as Hugging Face ships data sets. Needs the extra `parquet`."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Final

from data.sources.errors import SourceError
from data.sources.places import inside, is_folder, open_file
from data.sources.shards import Found, FoundSamples, class_list, files_of
from data.sources.source import ListedSource, Spool

ROWS: Final = 64  # read at a time
DATA: Final = "data"  # the folder in which a repository keeps them
FEATURES: Final = b"huggingface"  # key of the schema's metadata
MAX_IMAGE_BYTES: Final = 1 << 26


def parquet_source(
    folder: str, spool_path: Path, splits: tuple[str, str], image_column: str, label_column: str
) -> ListedSource:
    """Read TRAIN_SPLIT*.parquet and TEST_SPLIT*.parquet of a folder, or of data/ in it.

    An image is a struct with `bytes`, or bytes; a label a number or a text. Names for numbers are
    those of the column's ClassLabel, or of classes.txt; their order is kept, so that labels stay as
    they are. Images go to the spool, which needs as much room as they take.

    Raises:
        SourceError: pyarrow is not installed, no such columns, damage, rows without bytes.
    """
    if is_folder(inside(folder, DATA)):
        folder = inside(folder, DATA)
    files = [files_of(folder, split, (".parquet",)) for split in splits]
    names = class_list(folder)
    samples = FoundSamples()
    with Spool(spool_path) as spool:
        for places in files:
            names = names or _class_label(places, label_column)
            rows = (_rows(place, (image_column, label_column), spool) for place in places)
            samples.add_split(chain.from_iterable(rows), spool.folder)
    return samples.labelled(folder, names)


@contextmanager
def _opened(place: str) -> Iterator[Any]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise SourceError(
            f"{place}: reading Parquet needs pyarrow: pip install 'verydeep[parquet]'"
        ) from error
    try:
        with open_file(place) as file:
            yield ParquetFile(file, page_checksum_verification=True)  # where it has checksums
    except (ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's, not Arrow's
            raise SourceError(f"{place}: cannot be read: {error.strerror}") from error
        raise SourceError(f"{place}: cannot be read as Parquet: {error}") from error


def _rows(place: str, columns: tuple[str, str], spool: Spool) -> Iterator[Found]:
    with _opened(place) as file:
        yield from _rows_of(place, file, columns, spool)


def _rows_of(place: str, file: Any, columns: tuple[str, str], spool: Spool) -> Iterator[Found]:
    if missing := [name for name in columns if name not in file.schema_arrow.names]:
        have = ", ".join(file.schema_arrow.names)
        raise SourceError(
            f"{place}: has no column {', '.join(missing)}: it has {have}; set "
            "data.image_column and data.label_column"
        )
    number = 0
    for batch in file.iter_batches(batch_size=ROWS, columns=list(columns)):
        for row in batch.to_pylist():
            image, label = (row[name] for name in columns)
            data = image.get("bytes") if isinstance(image, dict) else image
            where = f"{place}: row {number}"
            if not isinstance(data, bytes) or len(data) > MAX_IMAGE_BYTES:
                raise SourceError(f"{where}: expected up to {MAX_IMAGE_BYTES} bytes of an image")
            if not isinstance(label, int | str):
                raise SourceError(f"{where}: label is {label!r}: expected a number or a text")
            yield Found(f"{place.rpartition('/')[2]}#{number}", label, spool.append(data), place)
            number += 1


def _class_label(places: Iterable[str], column: str) -> tuple[str, ...]:
    """The names in the first file that tells some."""
    for place in places:
        with _opened(place) as file:
            metadata = file.schema_arrow.metadata or {}
        with suppress(KeyError, TypeError, ValueError):
            features = json.loads(metadata[FEATURES])["info"]["features"]
            return tuple(str(name) for name in features[column]["names"])
    return ()
