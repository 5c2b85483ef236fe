"""ILSVRC-2012 as Kaggle ships it (2012 to 2017 alike), packed or unpacked.

ILSVRC/{Annotations,Data}/CLS-LOC/{train,val}, LOC_synset_mapping.txt, LOC_val_solution.csv.
"""

import csv
import re
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from data.boxes import Annotation
from data.sources.errors import SourceError
from data.sources.messages import some
from data.sources.source import ListedSource, SourceSample
from data.sources.table import SampleTable, TableWriter
from data.sources.tree import Tree
from data.sources.xml_boxes import read_xml

CLASSES: Final = "LOC_synset_mapping.txt"
SOLUTION: Final = "LOC_val_solution.csv"
FILE: Final = re.compile(r"(?:.*/)?(Data|Annotations)/CLS-LOC/(train|val)/(.*)\.(JPEG|xml)")


def kaggle_source(tree: Tree, work: Path) -> ListedSource:
    """List the training images, and the validation images as test images.

    Labels are ranks of the sorted WNIDs, which is the order of the mapping file too.

    Raises:
        SourceError: a file is missing, a class without images, an image without label.
    """
    images: dict[str, array[int]] = {"train": array("q"), "val": array("q")}  # positions
    drawings: dict[str, int] = {}
    others: dict[str, SourceSample] = {}
    for position, name in enumerate(tree.files.names()):
        found = FILE.fullmatch(name)
        if not found:
            others[PurePosixPath(name).name] = tree.files[position]
        elif found[1] == "Data":
            images[found[2]].append(position)
        else:
            drawings[PurePosixPath(name).stem] = position
    class_names = tuple(sorted(line.split()[0] for _, line in _lines(tree, others, CLASSES)))
    labels = {wnid: label for label, wnid in enumerate(class_names)}
    solution = dict(_solution(tree, others, labels))
    with TableWriter(work) as train, TableWriter(work) as test:
        for file in tree.files.only(images["train"]):
            train.append(_sample(tree, file, _folder(file), labels, drawings))
        for file in tree.files.only(images["val"]):
            test.append(_sample(tree, file, solution.get(_stem(file)), labels, drawings))
        tables = train.table(), test.table()
    _require_all(tree, *tables, class_names, solution)
    return ListedSource(class_names, *tables)


def _require_all(
    tree: Tree,
    train: SampleTable,
    test: SampleTable,
    class_names: tuple[str, ...],
    solution: Mapping[str, str],
) -> None:
    have = set(train.labels.tolist())
    if missing := [name for label, name in enumerate(class_names) if label not in have]:
        raise SourceError(
            f"{tree.origin}: no training images of {len(missing)} classes: {some(missing)}"
        )
    found = {name.removesuffix(".JPEG") for name in test.names()}
    if missing := sorted(solution.keys() - found):
        raise SourceError(
            f"{tree.origin}: {len(missing)} of {len(solution)} validation images are missing: "
            f"{some(missing)}"
        )


def _sample(
    tree: Tree,
    file: SourceSample,
    wnid: str | None,
    labels: Mapping[str, int],
    drawings: Mapping[str, int],
) -> SourceSample:
    if wnid is None or wnid not in labels:
        what = f"class {wnid!r} is not in {CLASSES}" if wnid else f"has no line in {SOLUTION}"
        raise SourceError(f"{tree.origin}: {file.name}: {what}")
    annotation = None
    if (position := drawings.get(_stem(file))) is not None:
        drawing = tree.files[position]
        xml = read_xml(drawing.location.read(), f"{drawing.archive}: member {drawing.name!r}")
        boxes = tuple(t.box(t.name if t.name in labels else wnid) for t in xml.objects)
        annotation = Annotation(xml.width, xml.height, boxes)
    name = PurePosixPath(file.name).name
    return SourceSample(name, labels[wnid], file.location, file.archive, annotation)


def _solution(
    tree: Tree, by_name: Mapping[str, SourceSample], labels: Mapping[str, int]
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


def _lines(tree: Tree, by_name: Mapping[str, SourceSample], name: str) -> Iterator[tuple[int, str]]:
    if name not in by_name:
        raise SourceError(f"{tree.origin}: holds no {name}: expected Kaggle's tree with its lists")
    text = by_name[name].location.read().decode(errors="replace")
    return ((i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip())


def _stem(file: SourceSample) -> str:
    return PurePosixPath(file.name).stem


def _folder(file: SourceSample) -> str:
    return PurePosixPath(file.name).parent.name
