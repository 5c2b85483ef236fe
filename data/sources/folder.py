"""A folder-per-class tree on disk."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from data.sources.errors import SourceError
from data.sources.places import is_remote
from data.sources.source import NO_LABEL, ByteRange, ListedSource, SourceSample
from data.sources.table import TableWriter
from data.sources.tree import Tree, source_of_tree


def folder_source(path: str, train_split: str, test_split: str, work: Path) -> ListedSource:
    """Read a folder-per-class tree on a disk."""
    expected = (
        f"a folder with {train_split}/CLASS/IMAGE and {test_split}/CLASS/IMAGE, or with CLASS/IMAGE"
    )
    return source_of_tree(folder_tree(path, expected, work), train_split, test_split)


def folder_tree(path: str, expected: str, work: Path) -> Tree:
    """List the files below `path`; links are followed, as in any folder of links to images.

    Raises:
        SourceError: there is no such folder, and what was `expected`; links to nothing, devices.
    """
    root = Path(path)
    if is_remote(path):
        raise SourceError(f"data.path={path}: folders are read from a disk: put them into archives")
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise SourceError(f"data.path={path} {what}: expected {expected}")
    folders: list[str] = []
    with TableWriter(work) as files:
        return Tree(path, files.extend(_walk(root, folders)).table(), set(folders))


def _walk(root: Path, folders: list[str]) -> Iterator[SourceSample]:
    """Yield the files below root; add the names of the folders to `folders`."""
    for where, folder_names, file_names in os.walk(root, followlinks=True, onerror=_raise):
        inside = Path(where).relative_to(root)
        folders.extend(_printable((inside / name).as_posix(), root) for name in folder_names)
        for file_name in file_names:
            name = _printable((inside / file_name).as_posix(), root)
            path = os.path.join(where, file_name)
            yield SourceSample(name, NO_LABEL, ByteRange(path, 0, _size(path)), str(root))


def _raise(error: OSError) -> None:
    raise error


def _printable(name: str, root: Path) -> str:
    if not name.isprintable():
        raise SourceError(f"{root}: {name!r} is not printable UTF-8: rename it")
    return name


def _size(path: str) -> int:
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        raise SourceError(f"{path}: is a link to nothing: remove it") from error
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{path}: is neither a file nor a folder: remove it from the tree")
    return status.st_size
