"""PASCAL VOC 2007 and 2012, and data sets in their layout: several classes in an image, boxes.

ROOT/JPEGImages/ID.jpg, ROOT/Annotations/ID.xml, ROOT/ImageSets/{Main,Action}/*.txt.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final, Literal, NamedTuple

from data.boxes import Annotation, Box
from data.sources.errors import SourceError
from data.sources.messages import some
from data.sources.source import ListedSource, SourceSample
from data.sources.tree import Tree
from data.sources.xml_boxes import XmlAnnotation, read_xml

IMAGES: Final = "JPEGImages/"
PERSON: Final = "person"

Task = Literal["classification", "action"]
Verdicts = dict[str, int]  # class → 1 present, 0 difficult, -1 absent


class _Root(NamedTuple):
    """The files below one VOC root, by name from there on."""

    origin: str
    files: Mapping[str, SourceSample]

    def text(self, name: str) -> str:
        if name not in self.files:
            raise SourceError(f"{self.origin}: holds no {name}: fetch the archive again")
        return self.files[name].location.read().decode(errors="replace")

    def annotation(self, image_id: str) -> XmlAnnotation:
        name = f"Annotations/{image_id}.xml"
        if name not in self.files:
            raise SourceError(f"{self.origin}: holds no {name}, though image {image_id} is listed")
        file = self.files[name]
        return read_xml(file.location.read(), f"{file.archive}: member {file.name!r}")

    def image(self, image_id: str) -> SourceSample:
        for extension in ("jpg", "png"):
            if found := self.files.get(f"{IMAGES}{image_id}.{extension}"):
                return found
        raise SourceError(f"{self.origin}: holds no {IMAGES}{image_id}.jpg, though it is listed")


def voc_source(tree: Tree, train_split: str, test_split: str, task: Task) -> ListedSource:
    """Read one VOC root as labelled images.

    `classification`: a sample is an image; `present` of its annotation lists all its classes, and
    `difficult` those that count neither way. `action`: a sample is a person, called ID.jpg#NUMBER,
    whose box is given. The label is the first class present, for uses that want one.

    Classes and verdicts are those of ImageSets; without lists by class, as in data sets that only
    follow the layout, those of the objects in the XML.

    Raises:
        SourceError: no or several roots, a missing list, image or XML, a line that is none.
    """
    root = _root(tree)
    folder = "Action" if task == "action" else "Main"
    class_names = _listed_classes(root, folder, train_split) or _drawn_classes(root, train_split)
    read = _people if task == "action" else _images
    labels = {name: label for label, name in enumerate(class_names)}
    train, test = (list(read(root, split, labels)) for split in (train_split, test_split))
    return ListedSource(class_names, train, test)


def _root(tree: Tree) -> _Root:
    tops = {file.name.partition(IMAGES)[0] for file in tree.files if IMAGES in file.name}
    if len(tops) != 1:
        found = some(sorted(top or "its top folder" for top in tops)) or "none"
        raise SourceError(
            f"{tree.origin}: expected one folder with {IMAGES}, Annotations/ and ImageSets/, "
            f"found {found}: put the archives of one year there and name them in data.archives, "
            "or unpack them there"
        )
    (top,) = tops
    files = {f.name.removeprefix(top): f for f in tree.files if f.name.startswith(top)}
    return _Root(f"{tree.origin}: {top}", files)


def _listed_classes(root: _Root, folder: str, split: str) -> tuple[str, ...]:
    pattern = re.compile(rf"ImageSets/{folder}/(.+)_{re.escape(split)}\.txt")
    found = (pattern.fullmatch(name) for name in root.files)
    return tuple(sorted(match[1] for match in found if match))


def _drawn_classes(root: _Root, split: str) -> tuple[str, ...]:
    ids = _lines(root, "Main", split)
    names = {thing.name for _, (image_id, *_) in ids for thing in root.annotation(image_id).objects}
    if len(names) < 2:
        raise SourceError(f"{root.origin}: {len(names)} classes in {split}: expected at least two")
    return tuple(sorted(names))


def _images(root: _Root, split: str, labels: Mapping[str, int]) -> Iterator[SourceSample]:
    listed = _verdicts(root, "Main", split, labels, num_keys=1)
    for _, (image_id, *_) in _lines(root, "Main", split):
        xml = root.annotation(image_id)
        verdicts = listed.get((image_id,)) or _drawn_verdicts(xml)
        boxes = tuple(thing.box(thing.name) for thing in xml.objects)
        yield _sample(root, image_id, "", labels, verdicts, (xml, boxes))


def _drawn_verdicts(xml: XmlAnnotation) -> Verdicts:
    """A class whose objects are all difficult is difficult itself."""
    verdicts: Verdicts = {}
    for thing in xml.objects:
        verdicts[thing.name] = max(verdicts.get(thing.name, 0), 0 if thing.difficult else 1)
    return verdicts


def _people(root: _Root, split: str, labels: Mapping[str, int]) -> Iterator[SourceSample]:
    for (image_id, number), verdicts in _verdicts(root, "Action", split, labels, 2).items():
        xml = root.annotation(image_id)
        if not 1 <= int(number) <= len(xml.objects):
            raise SourceError(f"{root.origin}: {image_id} has no object {number}, which is listed")
        boxes = (xml.objects[int(number) - 1].box(PERSON),)
        yield _sample(root, image_id, f"#{number}", labels, verdicts, (xml, boxes))


def _sample(
    root: _Root,
    image_id: str,
    part: str,
    labels: Mapping[str, int],
    verdicts: Verdicts,
    drawn: tuple[XmlAnnotation, tuple[Box, ...]],
) -> SourceSample:
    present = tuple(labels[n] for n in sorted(verdicts) if verdicts[n] == 1 and n in labels)
    difficult = tuple(labels[n] for n in sorted(verdicts) if verdicts[n] == 0 and n in labels)
    if not present and not difficult:
        raise SourceError(f"{root.origin}: {image_id}{part} shows none of the classes")
    xml, boxes = drawn
    annotation = Annotation(xml.width, xml.height, boxes, present, difficult)
    file = root.image(image_id)
    name = f"{PurePosixPath(file.name).name}{part}"
    return SourceSample(name, (present or difficult)[0], file.location, file.archive, annotation)


def _verdicts(
    root: _Root, folder: str, split: str, class_names: Iterable[str], num_keys: int
) -> dict[tuple[str, ...], Verdicts]:
    """From lists by class: lines of one or two keys and 1, 0 or -1, with blanks as they please."""
    verdicts: dict[tuple[str, ...], Verdicts] = {}
    for name in class_names:
        path = f"{name}_{split}"
        if f"ImageSets/{folder}/{path}.txt" not in root.files and folder == "Main":
            continue
        for number, parts in _lines(root, folder, path):
            if len(parts) != num_keys + 1 or not re.fullmatch(r"[-+]?[01]", parts[-1]):
                raise SourceError(
                    f"{root.origin}: ImageSets/{folder}/{path}.txt, line {number}: expected "
                    f"{num_keys + 1} columns, the last 1, 0 or -1, got {' '.join(parts)[:60]!r}"
                )
            verdicts.setdefault(tuple(parts[:-1]), {})[name] = int(parts[-1])
    return verdicts


def _lines(root: _Root, folder: str, name: str) -> Iterator[tuple[int, list[str]]]:
    text = root.text(f"ImageSets/{folder}/{name}.txt")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.split()
