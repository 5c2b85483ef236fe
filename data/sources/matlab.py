"""Structs of MATLAB's level-5 MAT-files: only what ILSVRC's meta.mat needs, and that strictly.

The format is told in "MAT-File Format" (The MathWorks). scipy reads it too, but allocates what a
header claims.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Final, NamedTuple

HEADER_BYTES: Final = 128
MAX_UNPACKED_BYTES: Final = 16 << 20
MATRIX, COMPRESSED = 14, 15  # types of elements
CODES: Final = {1: "b", 2: "B", 3: "h", 4: "H", 5: "i", 6: "I", 7: "f", 9: "d", 12: "q", 13: "Q"}
TEXT_CODES: Final = {4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}  # without byte order
STRUCT, TEXT = 2, 4  # classes of arrays
NUMERIC: Final = range(6, 16)

Field = str | float | None  # None: an array that is neither text nor one number


class MatError(ValueError):
    """Not a MAT-file of the kind read here."""


class _Element(NamedTuple):
    kind: int
    data: memoryview


def read_structs(data: bytes, variable: str) -> list[dict[str, Field]]:
    """Read a struct array: one dictionary for each element, field name → text or number.

    Raises:
        MatError: no level-5 file, truncated, a compressed part above 16 MB, or no such variable.
    """
    if len(data) < HEADER_BYTES or data[126:128] not in (b"IM", b"MI"):
        raise MatError("is no MATLAB level-5 file: its header lacks the mark MI")
    order = "<" if data[126:128] == b"IM" else ">"
    try:
        for element in _elements(memoryview(data)[HEADER_BYTES:], order):
            array = _unpacked(element, order)
            parts = list(_elements(array.data, order))
            if array.kind == MATRIX and bytes(parts[2].data) == variable.encode():
                return _structs(parts, order)
    except (struct.error, IndexError, UnicodeDecodeError, zlib.error, RecursionError) as error:
        raise MatError(f"is damaged: {error}") from error
    raise MatError(f"holds no variable {variable!r}")


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Tag and data of each; up to 4 bytes share 8 with their tag, all else is padded to 8."""
    while len(data) >= 8:
        kind, size = struct.unpack_from(f"{order}II", data)
        if kind >> 16:
            kind, size = kind & 0xFFFF, kind >> 16
            yield _Element(kind, data[4 : 4 + size])
            data = data[8:]
        else:
            if size > len(data) - 8:
                raise MatError(f"is truncated: an element claims {size} bytes")
            yield _Element(kind, data[8 : 8 + size])
            data = data[8 + (size if kind == COMPRESSED else -(-size // 8) * 8) :]


def _unpacked(element: _Element, order: str) -> _Element:
    if element.kind != COMPRESSED:
        return element
    unpacker = zlib.decompressobj()
    data = unpacker.decompress(element.data, MAX_UNPACKED_BYTES)
    if unpacker.unconsumed_tail:
        raise MatError(f"has a part that unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    inner = next(_elements(memoryview(data), order), None)
    if inner is None:
        raise MatError("is truncated: a compressed part holds nothing")
    return inner


def _structs(parts: list[_Element], order: str) -> list[dict[str, Field]]:
    """A struct array: flags, dimensions, name, length of names, names, then its fields in turn."""
    if _class(parts, order) != STRUCT:
        raise MatError("holds a variable of another class: expected a struct array")
    (width,) = struct.unpack_from(f"{order}i", parts[3].data)
    packed = bytes(parts[4].data)
    if width < 1:
        raise MatError(f"is damaged: field names of {width} bytes")
    names = [packed[i : i + width].split(b"\0")[0].decode() for i in range(0, len(packed), width)]
    values = [_value(element, order) for element in parts[5:]]
    if not names or len(values) % len(names):
        raise MatError(f"is damaged: {len(values)} values for {len(names)} fields")
    return [
        dict(zip(names, values[i : i + len(names)], strict=True))
        for i in range(0, len(values), len(names))
    ]


def _class(parts: list[_Element], order: str) -> int:
    (flags,) = struct.unpack_from(f"{order}I", parts[0].data)
    return int(flags & 0xFF)


def _value(element: _Element, order: str) -> Field:
    parts = list(_elements(element.data, order))
    if not parts:
        return None
    array_class = _class(parts, order)
    if array_class == TEXT:
        return _text(parts[3], order) if len(parts) > 3 else ""
    if array_class in NUMERIC and parts[3].kind in CODES:
        code, data = CODES[parts[3].kind], parts[3].data
        if len(data) == struct.calcsize(code):
            return float(struct.unpack(order + code, data)[0])
    return None


def _text(element: _Element, order: str) -> str:
    encoding = TEXT_CODES.get(element.kind, "latin-1")
    if encoding in ("utf-16", "utf-32"):
        encoding += "-le" if order == "<" else "-be"
    return bytes(element.data).decode(encoding)
