"""The bytes of a tar being written, and where its next images will lie."""

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from data.decode import Encoded
from data.direct_file import DirectFile
from data.tar_format import BLOCK_BYTES, end_mark, member_bytes

#: What follows an image, padding aside: label and JSON, if each has one block.
BESIDE_BYTES: Final = 2 * member_bytes(BLOCK_BYTES)


class Place(NamedTuple):
    """Where an image may be put before it is known whether it stays, and as what."""

    start: int  # in the tar
    memory: memoryview


class TarSink:
    """Appends to a tar and keeps the digest of all that is in it but the images.

    Those have digests of their own, in the JSON beside them, which is hashed.
    """

    def __init__(self, file: DirectFile) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    @property
    def num_bytes(self) -> int:
        return self._file.num_bytes

    def places(self, sizes: Sequence[int]) -> list[Place]:
        """Where images of so many bytes will lie if each but the last has BESIDE_BYTES behind it.

        They are to be taken before others are asked for, with no more than that behind each.
        """
        begins, total = [], 0
        for size in sizes:
            begins.append(total + BLOCK_BYTES)
            total += planned_bytes(size)
        room, before = self._file.room(total), self.num_bytes
        return [
            Place(before + begin, room[begin : begin + size])
            for begin, size in zip(begins, sizes, strict=True)
        ]

    def add(self, header: bytes, data: Encoded, start: int | None, beside: bytes) -> None:
        """Append an image between its header and what lies beside it.

        Args:
            start: where in the tar the image's bytes lie already, if they do.
        """
        self.sha256.update(header + beside)
        room = self._file.room(BLOCK_BYTES + len(data))
        if start != self.num_bytes + BLOCK_BYTES:
            room[BLOCK_BYTES:] = data  # before the header, which may lie over its first bytes
        room[:BLOCK_BYTES] = header
        self._file.append(len(room))
        self._append(beside)

    def finish(self) -> None:
        end = end_mark(self.num_bytes)
        self.sha256.update(end)
        self._append(end)
        self._file.finish()

    def _append(self, data: bytes) -> None:
        self._file.room(len(data))[:] = data
        self._file.append(len(data))


def planned_bytes(size: int) -> int:
    """What an image of so many bytes takes in a tar, with BESIDE_BYTES behind it."""
    return member_bytes(size) + BESIDE_BYTES
