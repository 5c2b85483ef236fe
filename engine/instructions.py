"""What the coordinator wants done: small records that `engine.dask_train` carries out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.frames import Message
from engine.ledger import Holder, Lease, Range


class RunFailedError(RuntimeError):
    """Training cannot go on; the message sums up why."""


@dataclass(frozen=True)
class Send:
    """Send a message to a connected peer."""

    peer: int
    message: Message


@dataclass(frozen=True)
class Drop:
    """Close the connection and end the process behind it, which no longer answers."""

    peer: int
    pid: int
    worker: str


@dataclass(frozen=True)
class Lent:
    """Note in the journal that `lease` goes to `holder`."""

    holder: Holder
    lease: Lease


@dataclass(frozen=True)
class Record:
    """One row of the event log."""

    event: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Commit:
    """All shards have written: make checkpoint `id` visible, then measure it if asked."""

    id: int
    counted: tuple[Range, ...]
    num_counted: int
    num_steps: int
    shards: tuple[Message, ...]
    final: bool
    validate: bool
    warm_start: bool = False  # to be kept as the end of the warm start


@dataclass(frozen=True)
class Finish:
    """Every sample counts and the final checkpoint is measured; or the run was told to stop."""


Instruction = Send | Lent | Drop | Record | Commit | Finish
