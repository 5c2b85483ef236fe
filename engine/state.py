"""A shard's whole state in one stretch of memory, so that it can outlive its process.

The memory is an ordinary buffer in tests and a file mapping in real runs. An update is applied
block by block; an *intent* and *undo* copies of two blocks lie beside the vectors, so that whoever
opens the memory after a kill -9 finishes the interrupted push and applies it exactly once:

    1. the intent says which push is being applied and where its gradient lies; it stays for a
       while, since a log on disk may have no record of the push yet;
    2. the first block is copied to undo, then noted as copied;
    3. each block is updated in place while the one behind it is copied to the other undo; only when
       both are done the next block is noted as begun, then as copied;
    4. the push enters the table of applied pushes, the version moves, the intent is cleared.

So a block that is begun and noted as copied may be updated by half, and is put back. One that is
begun and not noted as copied is as it was. Were the copy noted first, a successor would find the
last block begun without a copy, take it for untouched and update it again.

A process that dies has all its earlier stores visible to its successor (same page cache), so
the order of the stores is the order the successor sees. Power loss is another matter.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

#: Elements updated at a time: they and both undo copies stay in a core's first cache.
BLOCK = 128
#: Rows of the table of applied pushes, one per life of a replica.
NUM_ROWS = 1024
#: The newest intents that are kept; a log on disk lags behind by fewer pushes.
NUM_INTENTS = 64
_PAGE = 4096

#: A push, what it changes in the table of applied pushes, and where its gradient lies.
INTENT = np.dtype(
    [
        ("replica", "i8"),
        ("incarnation", "i8"),
        ("sequence", "i8"),
        ("row", "i8"),
        ("lease", "i8"),
        ("upto", "i8"),
        ("window", "u8"),
        ("high", "i8"),
        ("version", "i8"),
        ("scale", "f8"),
        ("path", "S512"),
        ("offset", "i8"),
    ]
)

_HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("ready", "i8"),
        ("num_values", "i8"),
        ("num_slots", "i8"),
        ("itemsize", "i8"),
        ("owner_epoch", "i8"),
        ("version", "i8"),
        ("logged", "i8"),  # all up to this version is in the log on disk
        ("intent_active", "i8"),  # the version that is being made, or 0
        ("intent_next_block", "i8"),  # all before it are updated: marks[0] of an update
        ("intent_undo_block", "i8"),  # the newest that is copied as it was: marks[1]
    ]
)

#: One life of a replica. `high` is the highest sequence number applied, `window` has bit d set
#: when high - d was applied, (lease, upto) is its furthest progress.
ROW = np.dtype(
    [
        ("used", "i8"),
        ("replica", "i8"),
        ("incarnation", "i8"),
        ("fenced", "i8"),
        ("high", "i8"),
        ("window", "u8"),
        ("lease", "i8"),
        ("upto", "i8"),
    ]
)
_MARKS_AT = _HEADER.fields["intent_next_block"][1]  # type: ignore[index]  # only scalars have None
_MAGIC = b"shard04\0"


class Location(NamedTuple):
    """Where a gradient lies: a file other processes can map, and the byte offset in it."""

    path: str
    offset: int


NOWHERE = Location("", 0)


class ShardState:
    """Views into one buffer: header, table of applied pushes, intents, undo, values, slots."""

    def __init__(self, buffer: Any, num_values: int, num_slots: int, dtype: torch.dtype) -> None:
        self.header: Any = np.frombuffer(buffer, _HEADER, count=1)
        self.rows: Any = np.frombuffer(buffer, ROW, count=NUM_ROWS, offset=_ROWS_AT)
        self._intents: Any = np.frombuffer(buffer, INTENT, count=NUM_INTENTS, offset=_INTENTS_AT)
        number = np.dtype(torch.finfo(dtype).dtype)
        #: The header's `intent_next_block` and `intent_undo_block`.
        self.marks: Any = np.frombuffer(buffer, np.int64, count=2, offset=_MARKS_AT)
        self.block_size, self.num_values = BLOCK, num_values
        undo, width = (2, 1 + num_slots, BLOCK), _aligned(num_values * number.itemsize)
        shape = (1 + num_slots, width // number.itemsize)
        #: Where block k has its copy, [k % 2]: those before and behind it have the other.
        self.undo = np.frombuffer(buffer, number, math.prod(undo), _UNDO_AT).reshape(undo)
        values_at = _values_at(num_slots, number.itemsize)
        #: Values and slots, shape (1 + num_slots, num_values and what fills a page).
        self.vectors = np.frombuffer(buffer, number, math.prod(shape), values_at).reshape(shape)
        rows = [torch.from_numpy(row[:num_values]) for row in self.vectors]
        self.values, self.slots = rows[0], rows[1:]
        self._check_header(num_values, num_slots, number.itemsize)

    @staticmethod
    def num_bytes(num_values: int, num_slots: int, dtype: torch.dtype) -> int:
        """Size of the buffer that a state needs."""
        vectors = (1 + num_slots) * _aligned(num_values * dtype.itemsize)
        return _values_at(num_slots, dtype.itemsize) + vectors

    @staticmethod
    def in_memory(num_values: int, num_slots: int, dtype: torch.dtype) -> "ShardState":
        """A state that dies with its process."""
        size = ShardState.num_bytes(num_values, num_slots, dtype)
        return ShardState(bytearray(size), num_values, num_slots, dtype)

    def _check_header(self, num_values: int, num_slots: int, itemsize: int) -> None:
        fields = {"num_values": num_values, "num_slots": num_slots, "itemsize": itemsize}
        if self["magic"] == b"":
            for name, value in fields.items():
                self[name] = value
            self["magic"] = _MAGIC
        found = {name: int(self[name]) for name in fields}
        if self["magic"] != _MAGIC.rstrip(b"\0") or found != fields:
            raise ValueError(f"memory of another shard: want {fields}, found {found}")

    def __getitem__(self, field: str) -> Any:
        return self.header[field][0]

    def __setitem__(self, field: str, value: Any) -> None:
        self.header[field][0] = value

    def intent(self, version: int) -> Any:
        """The record, of type INTENT, of the push that makes `version`: one of the newest."""
        return self._intents[version % NUM_INTENTS]

    def set_intent(self, version: int, fields: tuple[Any, ...]) -> None:
        """Keep the push that makes `version` in the place of the one NUM_INTENTS before it."""
        self._intents[version % NUM_INTENTS] = fields

    @property
    def num_blocks(self) -> int:
        return -(-self.num_values // self.block_size)

    def block(self, index: int) -> tuple[int, int]:
        """Where a block starts and stops; behind the last one, an empty one."""
        start = index * self.block_size
        return min(start, self.num_values), min(start + self.block_size, self.num_values)

    def save_undo(self, index: int) -> None:
        """Keep a copy of block `index`, then note that the copy is whole."""
        start, stop = self.block(index)
        self.undo[index % 2, :, : stop - start] = self.vectors[:, start:stop]
        self["intent_undo_block"] = index

    def restore_undo(self, index: int) -> None:
        """Put block `index` back as it was when it was last saved."""
        start, stop = self.block(index)
        self.vectors[:, start:stop] = self.undo[index % 2, :, : stop - start]

    def fill(self, values: Tensor, slots: Sequence[Tensor], version: int) -> None:
        """Set the vectors of a new state and mark it ready to be taken over."""
        self.load(values, slots, version)
        self["ready"] = 1

    def load(self, values: Tensor, slots: Sequence[Tensor], version: int) -> None:
        """Set the vectors of a new state; it is not `ready` until more has been done."""
        self.values.copy_(values)
        for own, given in zip(self.slots, slots, strict=True):
            own.copy_(given)
        self["version"] = self["logged"] = version


def _aligned(num_bytes: int) -> int:
    return -(-num_bytes // _PAGE) * _PAGE


_ROWS_AT = _PAGE
_INTENTS_AT = _aligned(_ROWS_AT + ROW.itemsize * NUM_ROWS)
_UNDO_AT = _aligned(_INTENTS_AT + INTENT.itemsize * NUM_INTENTS)


def _values_at(num_slots: int, itemsize: int) -> int:
    return _aligned(_UNDO_AT + 2 * (1 + num_slots) * BLOCK * itemsize)
