"""ILSVRC-2012 as Kaggle ships it (2012 to 2017 alike), packed or unpacked.

ILSVRC/{Annotations,Data}/CLS-LOC/{train,val}, LOC_synset_mapping.txt, LOC_val_solution.csv.
"""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

from data.boxes import Annotation
from data.sources.errors import SourceError
from data.sources.messages import some
from data.sources.source import ListedSource, SourceSample
from data.sources.tree import Tree, TreeFile
from data.sources.xml_boxes import read_xml

CLASSES: Final = "LOC_synset_mapping.txt"
SOLUTION: Final = "LOC_val_solution.csv"
FILE: Final = re.compile(r"(?:.*/)?(Data|Annotations)/CLS-LOC/(train|val)/(.*)\.(JPEG|xml)")


def kaggle_source(tree: Tree) -> ListedSource:
    """List the training images, and the validation images as test images.

    Labels are ranks of the sorted WNIDs, which is the order of the mapping file too.

    Raises:
        SourceError: a file is missing, a class without images, an image without label.
    """
    by_name = {PurePosixPath(file.name).name: file for file in tree.files}
    class_names = tuple(sorted(line.split()[0] for _, line in _lines(tree, by_name, CLASSES)))
    labels = {wnid: label for label, wnid in enumerate(class_names)}
    solution = dict(_solution(tree, by_name, labels))
    images: dict[str, list[TreeFile]] = {"train": [], "val": []}
    drawings: dict[str, TreeFile] = {}
    for file in tree.files:
        if found := FILE.fullmatch(file.name):
            if found[1] == "Data":
                images[found[2]].append(file)
            else:
                drawings[_stem(file)] = file
    train = [_sample(tree, f, _folder(f), labels, drawings) for f in images["train"]]
    test = [_sample(tree, f, solution.get(_stem(f)), labels, drawings) for f in images["val"]]
    _require_all(tree, train, test, class_names, solution)
    return ListedSource(class_names, train, test)


def _require_all(
    tree: Tree,
    train: list[SourceSample],
    test: list[SourceSample],
    class_names: tuple[str, ...],
    solution: Mapping[str, str],
) -> None:
    have = {sample.label for sample in train}
    if missing := [name for label, name in enumerate(class_names) if label not in have]:
        raise SourceError(
            f"{tree.origin}: no training images of {len(missing)} classes: {some(missing)}"
        )
    found = {sample.name.removesuffix(".JPEG") for sample in test}
    if missing := sorted(solution.keys() - found):
        raise SourceError(
            f"{tree.origin}: {len(missing)} of {len(solution)} validation images are missing: "
            f"{some(missing)}"
        )


def _sample(
    tree: Tree,
    file: TreeFile,
    wnid: str | None,
    labels: Mapping[str, int],
    drawings: Mapping[str, TreeFile],
) -> SourceSample:
    if wnid is None or wnid not in labels:
        what = f"class {wnid!r} is not in {CLASSES}" if wnid else f"has no line in {SOLUTION}"
        raise SourceError(f"{tree.origin}: {file.name}: {what}")
    annotation = None
    if drawing := drawings.get(_stem(file)):
        xml = read_xml(drawing.location.read(), f"{drawing.archive}: member {drawing.name!r}")
        boxes = tuple(t.box(t.name if t.name in labels else wnid) for t in xml.objects)
        annotation = Annotation(xml.width, xml.height, boxes)
    name = PurePosixPath(file.name).name
    return SourceSample(name, labels[wnid], file.location, file.archive, annotation)


def _solution(
    tree: Tree, by_name: Mapping[str, TreeFile], labels: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """ImageId,PredictionString: of the string only the first word counts, the class."""
    rows = csv.reader(line for _, line in _lines(tree, by_name, SOLUTION))
    for number, row in enumerate(rows, 1):
        if number == 1:
            continue
        words = row[1].split() if len(row) == 2 else []
        if not words or words[0] not in labels:
            raise SourceError(f"{tree.origin}: {SOLUTION}, line {number}: expected ID,WNID BOX...")
        yield row[0], words[0]


def _lines(tree: Tree, by_name: Mapping[str, TreeFile], name: str) -> Iterator[tuple[int, str]]:
    if name not in by_name:
        raise SourceError(f"{tree.origin}: holds no {name}: expected Kaggle's tree with its lists")
    text = by_name[name].location.read().decode(errors="replace")
    return ((i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip())


def _stem(file: TreeFile) -> str:
    return PurePosixPath(file.name).stem


def _folder(file: TreeFile) -> str:
    return PurePosixPath(file.name).parent.name
