"""WebDataset tars made elsewhere: KEY.jpg beside KEY.cls, or KEY.json with the label in it."""

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Final

from data.sources.errors import SourceError
from data.sources.shards import Found, FoundSamples, class_list, files_of
from data.sources.source import ByteRange, ListedSource, Spool
from data.sources.strict_tar import Member, is_compressed, tar_members

IMAGES: Final = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm", "img")
LABELS: Final = ("cls", "json")
MAX_LABEL_BYTES: Final = 1 << 20


def webdataset_source(
    folder: str, spool_path: Path, train_split: str, test_split: str, label_key: str
) -> ListedSource:
    """Read TRAIN_SPLIT*.tar and TEST_SPLIT*.tar (also .tar.gz) of a folder or bucket.

    A label is a number or a class's name: the content of `.cls`, or of `.json` what `label_key`
    says. Names for numbers are taken from classes.txt in the folder. Other members are passed over.

    Raises:
        SourceError: a damaged tar, an image without label, a label that is none.
    """
    endings = (".tar", ".tar.gz", ".tgz")
    files = [files_of(folder, split, endings) for split in (train_split, test_split)]
    samples = FoundSamples()
    with Spool(spool_path) as spool:
        for places in files:
            found = chain.from_iterable(_found(place, spool, label_key) for place in places)
            samples.add_split(found, spool.folder)
    return samples.labelled(folder, class_list(folder))


def _found(place: str, spool: Spool, label_key: str) -> Iterator[Found]:
    """Members of a sample lie side by side and share all up to the first dot of the file name."""
    compressed = is_compressed(place)
    key, image, label = "", None, None
    for member in tar_members(place):
        if member.is_folder:
            continue
        base, extension = _key(member.name)
        if base != key:
            yield from _sample(place, key, image, label)
            key, image, label = base, None, None
        if extension in IMAGES:
            location = (
                spool.append(member.read())
                if compressed
                else ByteRange(place, member.offset, member.num_bytes)
            )
            image = (member.name, location)
        elif extension in LABELS and label is None:
            label = _label(place, member, extension, label_key)
    yield from _sample(place, key, image, label)


def _key(name: str) -> tuple[str, str]:
    folder, slash, file = name.rpartition("/")
    stem, _, extension = file.partition(".")
    return f"{folder}{slash}{stem}", extension.lower()


def _sample(
    place: str, key: str, image: tuple[str, ByteRange] | None, label: int | str | None
) -> Iterator[Found]:
    if image is None:
        return
    if label is None:
        raise SourceError(f"{place}: {key} has no label: expected {key}.cls, or .json with one")
    name, location = image
    yield Found(f"{place.rpartition('/')[2]}/{name}", label, location, place)


def _label(place: str, member: Member, extension: str, label_key: str) -> int | str | None:
    """None: a JSON that holds no label, beside which there may be a .cls."""
    where = f"{place}: member {member.name!r}"
    if member.num_bytes > MAX_LABEL_BYTES:
        raise SourceError(f"{where}: has {member.num_bytes} bytes: too many for a label")
    data = member.read()
    if extension == "cls":
        text = data.decode(errors="replace").strip()
        if not text:
            raise SourceError(f"{where}: is empty: expected a number or a class's name")
        return int(text) if text.isdecimal() else text
    try:
        about = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{where}: is no JSON: {error}") from error
    label = about.get(label_key) if isinstance(about, dict) else None
    return label if isinstance(label, int | str) and not isinstance(label, bool) else None
