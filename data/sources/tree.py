"""Reading a list of file names as a folder-per-class tree, from a disk or from an archive."""

import hashlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, NamedTuple

from data.sources.errors import SourceError
from data.sources.messages import some
from data.sources.source import ByteRange, ListedSource, SourceSample

TEST_ONE_IN: Final = 10  # of the images of a tree without splits

Classes = Mapping[str, Sequence["TreeFile"]]  # class name → its files


class TreeFile(NamedTuple):
    name: str  # relative, "/" between the parts
    location: ByteRange
    archive: str  # or folder that it lies in


@dataclass(frozen=True)
class Tree:
    """The files and folders of a source; `origin` is how messages call it."""

    origin: str
    files: Sequence[TreeFile]
    folders: Set[str]  # the empty ones too


def source_of_tree(tree: Tree, train_split: str, test_split: str) -> ListedSource:
    """Read SPLIT/CLASS/IMAGE, or CLASS/IMAGE without splits, as labelled images.

    Images may lie deeper inside a class folder. Names with a part that starts with "." are passed
    over, as is anything beside the two splits. Without splits, an image belongs to the test set
    when its content's SHA-256 says so, one in ten: equal images never come apart, and adding images
    moves none of the others.

    Raises:
        SourceError: one split is missing, a class is empty or in one split only, a file lies beside
            the class folders.
    """
    tree = _without_hidden(tree)
    splits = [split for split in (train_split, test_split) if _holds(tree, split)]
    if len(splits) == 1:
        missing = test_split if splits == [train_split] else train_split
        raise SourceError(
            f"{tree.origin}: has {splits[0]}/ but no {missing}/: expected both, or class folders "
            "without splits; set data.train_split and data.test_split to the folders' names"
        )
    if not splits:
        return _split_by_content(tree)
    train, test = (_classes(tree, f"{split}/") for split in splits)
    _require_same_classes(tree.origin, train, test, train_split, test_split)
    return ListedSource(tuple(sorted(train)), _labelled(train), _labelled(test))


def is_test_content(data: bytes) -> bool:
    """Decide by content alone whether an image of a set without splits is a test image."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8]) % TEST_ONE_IN == 0


def _without_hidden(tree: Tree) -> Tree:
    def shown(name: str) -> bool:
        return not any(part.startswith(".") for part in name.split("/"))

    files = [file for file in tree.files if shown(file.name)]
    return Tree(tree.origin, files, {folder for folder in tree.folders if shown(folder)})


def _holds(tree: Tree, folder: str) -> bool:
    start = f"{folder}/"
    return folder in tree.folders or any(file.name.startswith(start) for file in tree.files)


def _classes(tree: Tree, start: str) -> Classes:
    classes: dict[str, list[TreeFile]] = {}
    for folder in tree.folders:
        if folder.startswith(start):
            classes.setdefault(folder.removeprefix(start).split("/")[0], [])
    for file in tree.files:
        if file.name.startswith(start):
            class_name, slash, _ = file.name.removeprefix(start).partition("/")
            if not slash:
                raise SourceError(
                    f"{tree.origin}: {file.name} lies beside the class folders: expected "
                    f"{start}CLASS/IMAGE; move it into its class's folder or out of the tree"
                )
            classes.setdefault(class_name, []).append(file)
    if len(classes) < 2:
        raise SourceError(
            f"{tree.origin}: found {len(classes)} class folders in {start or 'the top folder'}: "
            f"expected at least two, as {start}CLASS/IMAGE"
        )
    if empty := sorted(name for name, files in classes.items() if not files):
        raise SourceError(
            f"{tree.origin}: no images in {some([f'{start}{name}/' for name in empty])}: "
            "fill or remove empty class folders"
        )
    return classes


def _require_same_classes(
    origin: str, train: Classes, test: Classes, train_split: str, test_split: str
) -> None:
    problems = [
        f"only in {split}/: {some(sorted(names))}"
        for split, names in ((train_split, train.keys() - test), (test_split, test.keys() - train))
        if names
    ]
    if problems:
        raise SourceError(
            f"{origin}: the splits differ in their classes: {'; '.join(problems)}: "
            "expected the same class folders in both"
        )


def _labelled(classes: Classes) -> list[SourceSample]:
    return [
        SourceSample(file.name, label, file.location, file.archive)
        for label, class_name in enumerate(sorted(classes))
        for file in classes[class_name]
    ]


def _split_by_content(tree: Tree) -> ListedSource:
    classes = _classes(tree, "")
    train: list[SourceSample] = []
    test: list[SourceSample] = []
    for sample in _labelled(classes):
        (test if is_test_content(sample.location.read()) else train).append(sample)
    if not train or not test:
        raise SourceError(
            f"{tree.origin}: {len(train) + len(test)} images are too few to set one in "
            f"{TEST_ONE_IN} aside for testing: put them into train/CLASS/ and test/CLASS/"
        )
    return ListedSource(tuple(sorted(classes)), train, test)
