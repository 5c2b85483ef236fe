"""The tree of files that a data set is published as: packed, or unpacked by its user."""

from collections.abc import Sequence
from pathlib import Path

from data.sources.archive import archive_tree, require_archive
from data.sources.digests import digest_of
from data.sources.errors import SourceError
from data.sources.folder import folder_tree
from data.sources.messages import some
from data.sources.places import inside, is_file, is_folder
from data.sources.source import Spool
from data.sources.table import TableWriter
from data.sources.tree import Tree


def listed_tree(
    place: str, archives: Sequence[str], spool_path: Path, check_digests: bool, expected: str
) -> Tree:
    """List `archives` of the folder `place` as one tree; or the folder; or the archive `place`.

    Raises:
        SourceError: nothing is there, and what was `expected`; whatever the archives raise.
    """
    if archives:
        missing = [name for name in archives if not is_file(inside(place, name))]
        if missing and not is_unpacked(place, archives):
            raise SourceError(f"{place}: lacks {some(missing)}: put what is missing there, packed")
    if is_folder(place) and is_unpacked(place, archives):
        return folder_tree(place, expected, spool_path.parent)
    if not archives:
        require_archive(place, expected)
        place, _, name = place.rpartition("/")
        archives = [name]
    seen: set[str] = set()
    with Spool(spool_path) as spool, TableWriter(spool.folder) as files:
        for name in archives:
            digest = digest_of(place, name, check_digests)
            tree = archive_tree(inside(place, name), spool, digest)
            files.extend(file for file in tree.files if file.name not in seen)
            seen |= set(tree.files.names()) if len(archives) > 1 else set()
        origin = ", ".join(inside(place, name) for name in archives)
        return Tree(origin, files.table(), frozenset())


def is_unpacked(place: str, archives: Sequence[str]) -> bool:
    """True of a folder with none of the archives in it."""
    return is_folder(place) and not any(is_file(inside(place, name)) for name in archives)
