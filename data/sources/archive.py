"""A tar, plain or compressed, of a tree of files."""

from itertools import chain
from pathlib import Path

from data.sources.digests import Digest
from data.sources.errors import SourceError
from data.sources.places import is_file, is_folder
from data.sources.source import NO_LABEL, ByteRange, ListedSource, SourceSample, Spool
from data.sources.strict_tar import PlainMembers, is_compressed, tar_pieces
from data.sources.table import TableWriter
from data.sources.tree import Tree, source_of_tree


def archive_source(
    place: str,
    spool_path: Path,
    train_split: str,
    test_split: str,
    digest: Digest | None = None,
) -> ListedSource:
    """Read an archive of a folder-per-class tree; `archive_tree` tells how."""
    require_archive(
        place,
        f"an archive (.tar, .tar.gz, .tar.bz2, .tar.xz) of {train_split}/CLASS/IMAGE and "
        f"{test_split}/CLASS/IMAGE, or of CLASS/IMAGE",
    )
    with Spool(spool_path) as spool:
        tree = archive_tree(place, spool, digest)
    return source_of_tree(
        without_wrapping(tree, {train_split, test_split}), train_split, test_split
    )


def require_archive(place: str, expected: str) -> None:
    if not is_file(place):
        what = "is a folder" if is_folder(place) else "does not exist"
        raise SourceError(f"data.path={place} {what}: expected {expected}")


def archive_tree(place: str, spool: Spool, digest: Digest | None = None) -> Tree:
    """List an archive in one pass.

    Of a plain tar only the headers are read here, unless there is a digest to compare: its files
    are read later, in any order, from the archive itself. A compressed archive has no random
    access, so the pass appends its files to the spool, which needs room for all of them until
    staging ends.

    Raises:
        SourceError: no such format, truncated or damaged, or an unsafe member.
    """
    compressed = is_compressed(place)
    folders: set[str] = set()
    with TableWriter(spool.folder) as files:
        for member in tar_pieces(place, digest=digest):
            if isinstance(member, PlainMembers):
                files.append_plain(place, member.names, member.offsets, member.sizes)
                continue
            if member.is_folder:
                folders.add(member.name)
                continue
            location = (
                spool.append(member.read())
                if compressed
                else ByteRange(place, member.offset, member.num_bytes)
            )
            files.append(SourceSample(member.name, NO_LABEL, location, place))
        return Tree(place, files.table(), folders - {""})


def without_wrapping(tree: Tree, splits: set[str]) -> Tree:
    """Drop the folders that hold everything else: archives often have one around the tree."""
    while tree.files:
        top = tree.files[0].name.split("/")[0]
        start = f"{top}/"
        inner = tree.folders - {top}
        if top in splits or not all(
            name.startswith(start) for name in chain(inner, tree.files.names())
        ):
            break
        tree = Tree(
            f"{tree.origin}: {top}",
            tree.files.without_start(start),
            frozenset(name.removeprefix(start) for name in inner),
        )
    return tree
