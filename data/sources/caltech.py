"""Caltech-101 and Caltech-256: archives of class folders, split by counts per class."""

import hashlib
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from data.sources.digests import Digest, digest_of
from data.sources.errors import SourceError
from data.sources.listing import listed_tree
from data.sources.places import open_file
from data.sources.source import NO_LABEL, ListedSource, SourceSample, Spool
from data.sources.strict_tar import errors_named, stream_members
from data.sources.table import TableWriter
from data.sources.tree import Tree

# Whatever else lies in the archives is stray: 056.dog/greg/, RENAME2, tmp.
IMAGES: Final = {
    "caltech101": re.compile(r"(?:.*/)?([^/]+)/image_\d{4}\.jpg"),
    "caltech256": re.compile(r"(?:.*/)?(\d{3}\.[^/]+)/\d{3}_\d{4}\.jpg"),
}
INNER: Final = "101_ObjectCategories.tar.gz"


def caltech_source(
    kind: str,
    place: str,
    spool_path: Path,
    check_digests: bool,
    num_per_class: tuple[int, int | None],
    split_seed: int,
) -> ListedSource:
    """Read an archive (for 101 also the zip that it comes in) or the folder unpacked from it.

    All class folders are classes, BACKGROUND_Google and 257.clutter too, as in Simonyan & Zisserman
    2015, appendix B. Of each class the first images in the order of SHA-256(seed, name) train, the
    next ones test: (30, 50) and (60, None) are the customary numbers, None all the rest.
    """
    if place.endswith(".zip"):
        digest = digest_of(place.rpartition("/")[0], INNER, check_digests)
        tree = _zipped_tree(place, spool_path, digest)
    else:
        expected = "the archive of Caltech's object categories, or the folder unpacked from it"
        tree = listed_tree(place, (), spool_path, check_digests, expected)
    classes: dict[str, list[SourceSample]] = {}
    for file in tree.files:
        if found := IMAGES[kind].fullmatch(file.name):
            classes.setdefault(found[1], []).append(file)
    if len(classes) < 2:
        raise SourceError(
            f"{tree.origin}: {len(classes)} class folders of {kind}: expected 2 or more"
        )
    class_names = tuple(sorted(classes))
    train: list[SourceSample] = []
    test: list[SourceSample] = []
    for label, name in enumerate(class_names):
        files = sorted(classes[name], key=_place(split_seed))
        num_train, num_test = num_per_class
        if len(files) <= num_train:
            raise SourceError(
                f"{tree.origin}: class {name} has {len(files)} images: {num_train} to train on "
                "leave none to test; lower data.train_per_class"
            )
        end = None if num_test is None else num_train + num_test
        train += _samples(files[:num_train], label)
        test += _samples(files[num_train:end], label)
    return ListedSource(class_names, train, test)


def _place(seed: int) -> Callable[[SourceSample], bytes]:
    def place(file: SourceSample) -> bytes:
        name = "/".join(file.name.split("/")[-2:])  # however deep it was unpacked
        return hashlib.sha256(f"{seed}/{name}".encode()).digest()

    return place


def _samples(files: Sequence[SourceSample], label: int) -> list[SourceSample]:
    return [file._replace(label=label) for file in files]


def _zipped_tree(place: str, spool_path: Path, digest: Digest | None) -> Tree:
    with (
        Spool(spool_path) as spool,
        TableWriter(spool.folder) as files,
        _zip_member(place, INNER) as (stream, name),
    ):
        for member in stream_members(stream, f"{place}: {name}", digest=digest):
            if not member.is_folder:
                location = spool.append(member.read())
                files.append(SourceSample(member.name, NO_LABEL, location, place))
        return Tree(place, files.table(), frozenset())


@contextmanager
def _zip_member(place: str, ending: str) -> Iterator[tuple[IO[bytes], str]]:
    with errors_named(place), open_file(place) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                names = [name for name in archive.namelist() if name.endswith(ending)]
                if len(names) != 1:
                    raise SourceError(f"{place}: holds {len(names)} files {ending}: expected one")
                with archive.open(names[0]) as stream:
                    yield stream, names[0]
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise SourceError(f"{place}: cannot be read as zip: {error}") from error
