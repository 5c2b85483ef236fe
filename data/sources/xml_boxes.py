"""Boxes in PASCAL VOC's XML, as VOC and ILSVRC ship them: parsed strictly, without DTDs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.parsers.expat import ExpatError, ParserCreate, XMLParserType

from data.boxes import Box
from data.sources.errors import SourceError

MAX_XML_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
EDGES: Final = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class XmlObject:
    """One annotated object."""

    line: int  # of its <object> in the XML
    name: str = ""
    difficult: bool = False
    edges: dict[str, float] = field(default_factory=dict)
    actions: list[str] = field(default_factory=list)  # those marked 1

    def box(self, class_name: str) -> Box:
        x_min, y_min, x_max, y_max = (self.edges[edge] for edge in EDGES)
        return Box(class_name, x_min, y_min, x_max, y_max, self.difficult)


@dataclass
class XmlAnnotation:
    """One image. Its <filename> is not read: in ILSVRC it is sometimes the text "%s"."""

    width: int = 0  # as the annotator saw it, pixels; 0: not told
    height: int = 0
    objects: list[XmlObject] = field(default_factory=list)


def read_xml(data: bytes, where: str) -> XmlAnnotation:
    """Parse one annotation; `where` names archive and member in messages.

    Raises:
        SourceError: over 1 MB, deeper than 32 elements, any DTD or entity declaration, not well
            formed, no <annotation>, an object without name or box, an edge that is no number; with
            the line.
    """
    if len(data) > MAX_XML_BYTES:
        raise SourceError(
            f"{where}: has {len(data)} bytes of XML: at most {MAX_XML_BYTES} are read"
        )
    parser = ParserCreate()
    reader = _Reader(parser, where)
    try:
        parser.Parse(data, True)
    except ExpatError as error:
        raise SourceError(f"{where}: is not well-formed XML: {error}") from error
    return reader.annotation


class _Reader:
    """Collects what parsing meets; an element's path is that of its names from the root."""

    def __init__(self, parser: XMLParserType, where: str) -> None:
        self.annotation = XmlAnnotation()
        self._parser, self._where = parser, where
        self._path: list[str] = []
        self._text: list[str] = []
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.StartDoctypeDeclHandler = self._refuse_dtd
        parser.EntityDeclHandler = self._refuse_dtd

    def _refuse_dtd(self, *declared: object) -> None:
        raise self._error("declares a document type or an entity, which annotations never need")

    def _start(self, name: str, attributes: object) -> None:
        if len(self._path) == MAX_DEPTH:
            raise self._error(f"is nested deeper than {MAX_DEPTH} elements")
        if not self._path and name != "annotation":
            raise self._error(f"starts with <{name}>: expected <annotation>")
        self._path.append(name)
        self._text.clear()
        if self._path == ["annotation", "object"]:
            self.annotation.objects.append(XmlObject(self._parser.CurrentLineNumber))

    def _end(self, name: str) -> None:
        text = "".join(self._text).strip()
        self._text.clear()
        match self._path[1:]:
            case ["size", "width"]:
                self.annotation.width = self._size(text)
            case ["size", "height"]:
                self.annotation.height = self._size(text)
            case ["object"]:
                self._finish(self.annotation.objects[-1])
            case ["object", *inner]:
                self._put(self.annotation.objects[-1], inner, text)
        self._path.pop()

    def _put(self, thing: XmlObject, path: Sequence[str], text: str) -> None:
        match path:
            case ["name"]:
                thing.name = text
            case ["difficult"]:
                thing.difficult = text == "1"
            case ["bndbox", edge] if edge in EDGES:
                thing.edges[edge] = self._number(edge, text)
            case ["actions", action] if text == "1":
                thing.actions.append(action)

    def _finish(self, thing: XmlObject) -> None:
        if not thing.name or len(thing.edges) < len(EDGES):
            raise self._error(f"<object> of line {thing.line} lacks its name or an edge of its box")

    def _number(self, what: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self._error(f"<{what}> is {text[:40]!r}: expected a number of pixels")
        return value

    def _size(self, text: str) -> int:
        value = self._number("size", text)
        if not 0 <= value < 1 << 20:
            raise self._error(f"<size> is {text[:40]!r}: expected pixels")
        return round(value)

    def _error(self, what: str) -> SourceError:
        return SourceError(f"{self._where}, line {self._parser.CurrentLineNumber}: {what}")
