"""Reading a list of file names as a folder-per-class tree, from a disk or from an archive."""

import hashlib
from array import array
from collections.abc import Mapping, Set
from dataclasses import dataclass
from itertools import repeat
from typing import Final

from data.sources.errors import SourceError
from data.sources.messages import some
from data.sources.source import ListedSource
from data.sources.table import SampleTable

TEST_ONE_IN: Final = 10  # of the images of a tree without splits
SPLIT_NAMES: Final = {"train", "training", "val", "valid", "validation", "test", "testing"}

Classes = Mapping[str, "array[int]"]  # class name → positions of its files


@dataclass(frozen=True)
class Tree:
    """The files and folders of a source; `origin` is how messages call it."""

    origin: str
    files: SampleTable  # without labels; names are relative, "/" between the parts
    folders: Set[str]  # the empty ones too


def source_of_tree(tree: Tree, train_split: str, test_split: str) -> ListedSource:
    """Read SPLIT/CLASS/IMAGE, or CLASS/IMAGE without splits, as labelled images.

    Images may lie deeper inside a class folder. Names with a part that starts with "." are passed
    over, as is anything beside the two splits. Without splits, an image belongs to the test set
    when its content's SHA-256 says so, one in ten: equal images never come apart, and adding images
    moves none of the others.

    Raises:
        SourceError: one split is missing or called otherwise, a class is empty or in one split
            only, a file lies beside the class folders.
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
    labelled_train, labelled_test = _labelled(tree.files, train), _labelled(tree.files, test)
    return ListedSource(tuple(sorted(train)), labelled_train, labelled_test)


def is_test_content(data: bytes) -> bool:
    """Decide by content alone whether an image of a set without splits is a test image."""
    return int.from_bytes(hashlib.sha256(data).digest()[:8]) % TEST_ONE_IN == 0


def _without_hidden(tree: Tree) -> Tree:
    def shown(name: str) -> bool:
        return "/." not in name and not name.startswith(".")

    names = enumerate(tree.files.names())
    files = array("q", (position for position, name in names if shown(name)))
    if len(files) == len(tree.files):
        return tree
    return Tree(
        tree.origin, tree.files.only(files), {folder for folder in tree.folders if shown(folder)}
    )


def _holds(tree: Tree, folder: str) -> bool:
    start = f"{folder}/"
    return folder in tree.folders or any(name.startswith(start) for name in tree.files.names())


def _classes(tree: Tree, start: str) -> Classes:
    classes: dict[str, array[int]] = {}
    for folder in tree.folders:
        if folder.startswith(start):
            classes.setdefault(folder.removeprefix(start).split("/")[0], array("q"))
    for position, name in enumerate(tree.files.names()):
        if name.startswith(start):
            class_name, slash, _ = name.removeprefix(start).partition("/")
            if not slash:
                raise SourceError(
                    f"{tree.origin}: {name} lies beside the class folders: expected "
                    f"{start}CLASS/IMAGE; move it into its class's folder or out of the tree"
                )
            classes.setdefault(class_name, array("q")).append(position)
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


def _labelled(files: SampleTable, classes: Classes) -> SampleTable:
    positions, labels = array("q"), array("i")
    for label, class_name in enumerate(sorted(classes)):
        positions.extend(classes[class_name])
        labels.extend(repeat(label, len(classes[class_name])))
    return files.only(positions, labels)


def _split_by_content(tree: Tree) -> ListedSource:
    classes = _classes(tree, "")
    if all(name.lower() in SPLIT_NAMES for name in classes):
        raise SourceError(
            f"{tree.origin}: its folders {some(sorted(classes))} are called as splits are, not as "
            "classes: set data.train_split and data.test_split to two of them"
        )
    samples = _labelled(tree.files, classes)
    train, test = array("q"), array("q")
    for position, sample in enumerate(samples):
        (test if is_test_content(sample.location.read()) else train).append(position)
    if not train or not test:
        raise SourceError(
            f"{tree.origin}: {len(train) + len(test)} images are too few to set one in "
            f"{TEST_ONE_IN} aside for testing: put them into train/CLASS/ and test/CLASS/"
        )
    return ListedSource(tuple(sorted(classes)), samples.only(train), samples.only(test))
