"""The terms of a run and the leases that it has lent: which samples the shards' states contain.

With a table of applied pushes they say what a dead run had done. They lie beside the shards'
memory files and, with durability=power, beside their logs.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.checkpoint import Checkpoint, sync
from engine.ledger import Holder, Lease, Range

log = logging.getLogger(__name__)
_TERMS, _LEASES = "run.json", "leases.jsonl"


@dataclass(frozen=True)
class Terms:
    """What a journal continues."""

    checkpoints: str
    identity: Mapping[str, str]
    counted: Sequence[Range]  # at its beginning
    num_replicas: int


class Journal:
    """The leases of a run, written before they are lent."""

    def __init__(
        self,
        folder: Path,
        start: Checkpoint,
        num_replicas: int,
        elapsed: Callable[[], float],
        *,
        durable: bool = False,
    ) -> None:
        """Begin a journal in `folder`.

        Args:
            elapsed: seconds of training so far.
            durable: sync every line; one that cannot be written is an error.
        """
        checkpoints = str(start.folder.parent.resolve())
        terms = Terms(checkpoints, start.identity, start.counted, num_replicas)
        self._terms = folder / _TERMS
        self._durable, self._elapsed = durable, elapsed
        self._file = (folder / _LEASES).open("ab", buffering=0)
        self._write(folder / _TERMS, json.dumps(asdict(terms)).encode())
        if durable:
            sync(folder)

    def lent(self, holder: Holder, lease: Lease) -> None:
        """Note a lease; to be called before its holder learns of it.

        Raises:
            OSError: the journal is durable, and this line is not.
        """
        row = [*holder, lease, round(self._elapsed(), 3)]
        line = (json.dumps(row) + "\n").encode()
        try:
            if self._file.write(line) < len(line):
                raise OSError(f"{self._file.name}: no room for a line")
            if self._durable:
                os.fdatasync(self._file.fileno())
        except OSError as error:
            if self._durable:
                raise
            log.warning("%s: %s", self._terms.parent, error)
            self._terms.unlink(missing_ok=True)  # without this lease it would be wrong: better none

    def close(self) -> None:
        self._file.close()

    def _write(self, path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            if self._durable:
                os.fsync(file.fileno())


def read_terms(folder: Path) -> Terms | None:
    """The terms of the journal in `folder`; None if there is none that can be read."""
    try:
        fields: dict[str, Any] = json.loads((folder / _TERMS).read_bytes())
        fields["counted"] = tuple(Range(*r) for r in fields["counted"])
        return Terms(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_leases(folder: Path) -> tuple[list[tuple[Holder, Lease]], float]:
    """Every lease with its holder, and the seconds of training when the last one was lent."""
    lines = (folder / _LEASES).read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    leases = [((row[0], row[1]), Lease(*row[2])) for row in rows]
    return leases, float(rows[-1][3]) if rows else 0.0
