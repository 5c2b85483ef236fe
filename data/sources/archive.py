"""A tar, plain or compressed, of a folder-per-class tree."""

from pathlib import Path

from data.sources.source import ByteRange, ListedSource, SourceError, Spool
from data.sources.strict_tar import is_compressed, tar_members
from data.sources.tree import Tree, TreeFile, source_of_tree


def archive_source(path: Path, spool_path: Path, train_split: str, test_split: str) -> ListedSource:
    """Read an archive in one pass.

    Of a plain tar only the headers are read here: its images are read later, in any order, from
    the archive itself. A compressed archive has no random access, so the pass appends its images
    to `spool_path`, which needs room for all of them until staging ends.

    Raises:
        SourceError: no such file, no such format, truncated or damaged, or an unsafe member.
    """
    if not path.is_file():
        what = "is a folder" if path.exists() else "does not exist"
        raise SourceError(
            f"data.path={path} {what}: expected an archive (.tar, .tar.gz, .tar.bz2, .tar.xz) of "
            f"{train_split}/CLASS/IMAGE and {test_split}/CLASS/IMAGE, or of CLASS/IMAGE"
        )
    compressed = is_compressed(path)
    files: list[TreeFile] = []
    folders: set[str] = set()
    with Spool(spool_path) as spool:
        for member in tar_members(path):
            if member.is_folder:
                folders.add(member.name)
            elif compressed:
                files.append(TreeFile(member.name, spool.append(member.read())))
            else:
                location = ByteRange(str(path), member.offset, member.num_bytes)
                files.append(TreeFile(member.name, location))
    tree = _without_wrapping(Tree(str(path), files, folders - {""}), {train_split, test_split})
    return source_of_tree(tree, train_split, test_split)


def _without_wrapping(tree: Tree, splits: set[str]) -> Tree:
    """Drop the folders that hold everything else: archives often have one around the tree."""
    while tree.files:
        top = tree.files[0].name.split("/")[0]
        start = f"{top}/"
        inner = tree.folders - {top}
        if top in splits or not all(
            name.startswith(start) for name in [*inner, *(file.name for file in tree.files)]
        ):
            break
        tree = Tree(
            f"{tree.origin}: {top}",
            [TreeFile(file.name.removeprefix(start), file.location) for file in tree.files],
            frozenset(name.removeprefix(start) for name in inner),
        )
    return tree
