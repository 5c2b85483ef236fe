"""Reading the originals of one tar: files stay open, and the disk is told what comes next."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Self

from data.sources.places import is_remote
from data.sources.source import ByteRange

OPEN_FILES: Final = 8  # archives are few; images that lie in a folder come one by one
AHEAD_BYTES: Final = 64 << 20  # asked for at a time: they wait in the system's cache, not in ours


class Originals:
    """Reads byte ranges of few or many files, in turn.

    A disk is asked for them in the order in which they lie.
    """

    def __init__(self, locations: Sequence[ByteRange]) -> None:
        self._locations = locations
        self._num_read = self._num_announced = 0
        self._descriptors: OrderedDict[str, int] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        while self._descriptors:
            os.close(self._descriptors.popitem()[1])

    def read_into(self, place: memoryview) -> None:
        """Read the next one; `place` has its size."""
        if self._num_read == self._num_announced:
            self._announce()
        location = self._locations[self._num_read]
        self._num_read += 1
        if is_remote(location.path):
            place[:] = location.read()
        else:
            descriptor = self._descriptor(location.path)
            location.require_whole(os.preadv(descriptor, [place], location.offset))

    def _announce(self) -> None:
        """Have the system read ahead, from the next one on."""
        locations, start = self._locations, self._num_announced
        stop, num_bytes = start + 1, locations[start].num_bytes
        while stop < len(locations) and num_bytes + locations[stop].num_bytes <= AHEAD_BYTES:
            num_bytes += locations[stop].num_bytes
            stop += 1
        for place, offset, num_bytes in sorted(locations[start:stop]):
            if not is_remote(place):
                os.posix_fadvise(self._descriptor(place), offset, num_bytes, os.POSIX_FADV_WILLNEED)
        self._num_announced = stop

    def _descriptor(self, path: str) -> int:
        descriptor = self._descriptors.get(path)
        if descriptor is None:
            if len(self._descriptors) == OPEN_FILES:
                os.close(self._descriptors.popitem(last=False)[1])
            descriptor = self._descriptors[path] = os.open(path, os.O_RDONLY)
        return descriptor
