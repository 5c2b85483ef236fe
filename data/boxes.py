"""Boxes around objects: from the frame that an annotator saw to the pixels that are decoded."""

from typing import Any, Final, NamedTuple

DECIMALS: Final = 3  # of a pixel
# EXIF orientations that exchange the sides, and those under which x, y run backwards.
TURNED: Final = (5, 6, 7, 8)


class Box(NamedTuple):
    """One object. Coordinates are the annotation's own, in pixels of the annotator's frame."""

    class_name: str
    x_min: float
    y_min: float
    x_max: float
    y_max: float
    difficult: bool = False


class Annotation(NamedTuple):
    """What is known about an image beside its label."""

    width: int = 0  # of the image as the annotator saw it, pixels; 0: not told
    height: int = 0
    boxes: tuple[Box, ...] = ()
    present: tuple[int, ...] | None = None  # labels of all classes in it, where several may be
    difficult: tuple[int, ...] = ()  # of these neither presence nor absence counts
    is_blacklisted: bool = False  # left out of the localisation error


class BoxCounts(NamedTuple):
    """What became of boxes."""

    kept: int = 0
    reordered: int = 0  # min and max had been exchanged
    clipped: int = 0  # reached over the image's edge
    dropped: int = 0  # lay outside, or had no area

    def plus(self, other: "BoxCounts") -> "BoxCounts":
        return BoxCounts(*(a + b for a, b in zip(self, other, strict=True)))


def fit_boxes(
    annotation: Annotation, width: int, height: int, orientation: int
) -> tuple[list[dict[str, Any]], BoxCounts]:
    """Move an annotation's boxes to an image of width x height pixels as decoded.

    Annotators often saw another size than the file has: boxes are scaled. `orientation` is the
    file's EXIF orientation, which decoding has applied: boxes are turned with the image, unless the
    annotator's frame shows that it stood upright there too. Exchanged minima and maxima are put in
    order; what reaches over the edge is clipped, what has no area inside is dropped. A box that
    needs none of this keeps its numbers exactly.

    Returns:
        records {"class_name", "box": [x_min, y_min, x_max, y_max]}, with "difficult": true where
        told; and what became of the boxes.
    """
    records: list[dict[str, Any]] = []
    counts = BoxCounts()
    for box in annotation.boxes:
        edges = (box.x_min, box.y_min, box.x_max, box.y_max)
        ordered = _ordered(edges)
        placed = _placed(ordered, annotation, width, height, orientation)
        clipped = (
            max(placed[0], 0),
            max(placed[1], 0),
            min(placed[2], width),
            min(placed[3], height),
        )
        kept = clipped[0] < clipped[2] and clipped[1] < clipped[3]
        counts = counts.plus(
            BoxCounts(kept, ordered != edges, kept and clipped != placed, not kept)
        )
        if kept:
            record = {"class_name": box.class_name, "box": [_short(edge) for edge in clipped]}
            records.append(record | ({"difficult": True} if box.difficult else {}))
    return records, counts


def scale_boxes(records: list[dict[str, Any]], x: float, y: float) -> list[dict[str, Any]]:
    """Give the boxes of an image whose sides were multiplied by `x` and `y`."""
    return [
        record
        | {"box": [_short(edge * by) for edge, by in zip(record["box"], (x, y, x, y), strict=True)]}
        for record in records
    ]


Edges = tuple[float, float, float, float]


def _ordered(edges: Edges) -> Edges:
    x1, y1, x2, y2 = edges
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _placed(
    edges: Edges, annotation: Annotation, width: int, height: int, orientation: int
) -> Edges:
    stored = (height, width) if orientation in TURNED else (width, height)
    seen = (annotation.width, annotation.height)
    if 0 in seen:
        seen = stored
    if orientation in TURNED and _aspect_gap(seen, (width, height)) < _aspect_gap(seen, stored):
        return _scaled(edges, seen, (width, height))
    return _turned(_scaled(edges, seen, stored), stored, orientation)


def _aspect_gap(one: tuple[int, int], other: tuple[int, int]) -> int:
    return abs(one[0] * other[1] - one[1] * other[0])


def _scaled(edges: Edges, seen: tuple[int, int], size: tuple[int, int]) -> Edges:
    if seen == size:
        return edges
    x, y = size[0] / seen[0], size[1] / seen[1]
    return edges[0] * x, edges[1] * y, edges[2] * x, edges[3] * y


def _turned(edges: Edges, size: tuple[int, int], orientation: int) -> Edges:
    """As EXIF says: first exchange the axes (5 to 8), then mirror x, y or both."""
    width, height = size
    x1, y1, x2, y2 = edges
    if orientation in TURNED:
        x1, y1, x2, y2, width, height = y1, x1, y2, x2, height, width
    if orientation in (2, 3, 6, 7):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 7, 8):
        y1, y2 = height - y2, height - y1
    return x1, y1, x2, y2


def _short(edge: float) -> float:
    """Whole numbers as int, so that they look in JSON as they did in the annotation."""
    return int(edge) if edge == int(edge) else round(edge, DECIMALS)
