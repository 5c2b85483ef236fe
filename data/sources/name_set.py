"""Telling names that come twice without keeping them: an archive may have millions."""

from array import array
from typing import Final

FIRST_SLOTS: Final = 1024
MASK: Final = (1 << 64) - 1


class NameSet:
    """Names by their 64-bit hashes: 16 to 32 bytes for each, 48 while it grows.

    Python draws the hash's key anew for each process: nobody can make names that collide, and of
    14 million names any two do once in 200,000 runs.
    """

    def __init__(self) -> None:
        self._slots = array("Q", [0]) * FIRST_SLOTS  # 0: free
        self._num_names = 0

    def add(self, name: str) -> bool:
        """Return False for a name that is there already."""
        if 2 * self._num_names >= len(self._slots):
            self._grow()
        is_new = _put(self._slots, hash(name) & MASK or 1)
        self._num_names += is_new
        return is_new

    def _grow(self) -> None:
        larger = array("Q", [0]) * (2 * len(self._slots))
        for value in self._slots:
            if value:
                _put(larger, value)
        self._slots = larger


def _put(slots: "array[int]", value: int) -> bool:
    mask = len(slots) - 1
    slot = value & mask
    while found := slots[slot]:
        if found == value:
            return False
        slot = (slot + 1) & mask
    slots[slot] = value
    return True
