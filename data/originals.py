"""Reading the originals of one tar: files stay open, and the disk is told what comes next."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Self

from data.sources.places import is_remote
from data.sources.source import ByteRange

OPEN_FILES: Final = 8  # archives are few; images that lie in a folder come one by one
AHEAD_BYTES: Final = 64 << 20  # asked for at a time: they wait in the system's cache, not in ours


class Originals:
    """Reads byte ranges of few or many files."""

    def __init__(self) -> None:
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def in_turn(
        self, locations: Sequence[ByteRange], room: Callable[[int], memoryview]
    ) -> Iterator[memoryview]:
        """Read all, in this order; a disk is asked for them in the order in which they lie.

        `room` gives the memory to read so many bytes into.
        """
        announced = 0
        for number, location in enumerate(locations):
            if number == announced:
                announced = self._announce(locations, number)
            place = room(location.num_bytes)
            self._read(location, place)
            yield place

    def _announce(self, locations: Sequence[ByteRange], start: int) -> int:
        """Have the system read ahead from `start` on; returns where it was not asked any more."""
        stop, num_bytes = start + 1, locations[start].num_bytes
        while stop < len(locations) and num_bytes + locations[stop].num_bytes <= AHEAD_BYTES:
            num_bytes += locations[stop].num_bytes
            stop += 1
        for place, offset, num_bytes in sorted(locations[start:stop]):
            if not is_remote(place):
                os.posix_fadvise(self._descriptor(place), offset, num_bytes, os.POSIX_FADV_WILLNEED)
        return stop

    def _read(self, location: ByteRange, place: memoryview) -> None:
        if is_remote(location.path):
            place[:] = location.read()
        else:
            descriptor = self._descriptor(location.path)
            location.require_whole(os.preadv(descriptor, [place], location.offset))

    def _descriptor(self, path: str) -> int:
        descriptor = self._descriptors.get(path)
        if descriptor is None:
            if len(self._descriptors) == OPEN_FILES:
                os.close(self._descriptors.popitem(last=False)[1])
            descriptor = self._descriptors[path] = os.open(path, os.O_RDONLY)
        return descriptor
