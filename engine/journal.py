"""What a run notes so that it can be salvaged: its terms and its leases.

They lie beside its shards' memory and, with durability=power, beside their logs.
"""

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from engine.checkpoint import Checkpoint, sync
from engine.config import DownpourConfig, RuleConfig
from engine.ledger import Holder, Lease, Range
from engine.run_spec import RunSpec

log = logging.getLogger(__name__)
TERMS, _LEASES = "run.json", "leases.jsonl"
_RULE: TypeAdapter[RuleConfig] = TypeAdapter(RuleConfig)
_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.float64)}


@dataclass(frozen=True)
class Terms:
    """What a journal continues, and all that it takes to write a checkpoint of it."""

    checkpoints: str
    identity: Mapping[str, str]
    counted: Sequence[Range]  # at its beginning
    num_replicas: int
    minibatch_size: int
    keep_checkpoints: int
    rule: RuleConfig
    slices: Sequence[slice]
    dtype: torch.dtype
    shards_of: Sequence[Sequence[int]]  # that each replica pushes to


class Journal:
    """The leases of a run, written down before they are lent."""

    def __init__(
        self,
        folder: Path,
        run: RunSpec,
        config: DownpourConfig,
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
        self._terms = folder / TERMS
        self._durable = durable
        terms = {
            "checkpoints": str(run.checkpoints.resolve()),
            "identity": start.identity,
            "counted": start.counted,
            "num_replicas": num_replicas,
            "minibatch_size": config.minibatch_size,
            "keep_checkpoints": config.keep_checkpoints,
            "rule": asdict(config.rule),
            "slices": [(part.start, part.stop) for part in run.slices],
            "dtype": str(run.dtype),
            "shards_of": run.shards_of,
        }
        self._file = (folder / _LEASES).open("ab", buffering=0)
        self._elapsed = elapsed
        self._terms.write_text(json.dumps(terms))
        if durable:
            sync(self._terms)
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


def discard(folder: Path) -> None:
    """Forget the journal of a phase that is over: what comes next has one of its own, or none."""
    (folder / TERMS).unlink(missing_ok=True)
    (folder / _LEASES).unlink(missing_ok=True)


def read_terms(folder: Path) -> Terms | None:
    """The terms in a memory folder; None if it has none that are whole."""
    try:
        fields: dict[str, Any] = json.loads((folder / TERMS).read_bytes())
        fields["counted"] = tuple(Range(*r) for r in fields["counted"])
        fields["slices"] = tuple(slice(*part) for part in fields["slices"])
        fields["rule"] = _RULE.validate_python(fields["rule"])
        fields["dtype"] = _DTYPES[fields["dtype"]]
        # Those of an older version have none: every replica pushed to all.
        everywhere = [range(len(fields["slices"]))] * fields["num_replicas"]
        fields.setdefault("shards_of", everywhere)
        return Terms(**fields)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_leases(folder: Path) -> tuple[list[tuple[Holder, Lease]], float]:
    """Every lease with its holder, and the seconds of training when the last one was lent."""
    lines = (folder / _LEASES).read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    leases = [((row[0], row[1]), Lease(*row[2])) for row in rows]
    return leases, float(rows[-1][3]) if rows else 0.0
