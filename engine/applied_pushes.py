"""Which pushes a shard has applied, by the life of the replica that sent them."""

from typing import Any

from engine.ledger import Holder, Progress
from engine.push import StaleIncarnationError, StalePushError

#: Pushes of one replica may arrive out of order within this many sequence numbers.
WINDOW = 64


class AppliedPushes:
    """The table in a shard's memory: rows of `engine.state.ROW`, one for each life."""

    def __init__(self, rows: Any) -> None:
        """Read and write `rows`, shape (NUM_ROWS,), where they lie."""
        self.rows = rows
        self._row_of: dict[Holder, int] = {}

    def replace(self, rows: Any) -> None:
        """Let the table be as `rows` are."""
        self.rows[:] = rows
        self._row_of.clear()

    def row(self, replica: int, incarnation: int) -> int:
        """Index of this life's row; a new one takes a free row or that of an outlived life.

        The newest life of each replica keeps its row for ever: all earlier ones are known by it.
        """
        if (known := self._row_of.get((replica, incarnation))) is not None:
            return known
        row = self._find_row(replica, incarnation)
        self._row_of = {k: r for k, r in self._row_of.items() if r != row}
        self._row_of[replica, incarnation] = row
        return row

    def seen(self, row: int, sequence: int) -> bool:
        """True if this push of the row's life was applied; StalePushError if nobody knows."""
        high = int(self.rows[row]["high"])
        if sequence > high:
            return False
        if high - sequence >= WINDOW:
            raise StalePushError(
                f"push {sequence} is {high - sequence} behind the newest one applied, "
                f"the shard remembers {WINDOW}"
            )
        return bool(int(self.rows[row]["window"]) >> (high - sequence) & 1)

    def remembered(self, row: int, sequence: int) -> tuple[int, int]:
        """(high, window) of the row once `sequence` is applied too."""
        rows = self.rows
        high, window = int(rows["high"][row]), int(rows["window"][row])
        if sequence <= high:
            return high, window | 1 << (high - sequence)
        return sequence, (window << min(sequence - high, WINDOW) | 1) & (2**WINDOW - 1)

    def progress(self) -> dict[Holder, Progress]:
        """How far the applied pushes of each life of a replica reach."""
        rows = self.rows[(self.rows["used"] == 1) & (self.rows["high"] > 0)]
        return {
            (int(r["replica"]), int(r["incarnation"])): Progress(int(r["lease"]), int(r["upto"]))
            for r in rows
        }

    def sequences(self) -> dict[Holder, int]:
        """The highest sequence number applied of each life that may still push."""
        rows = self.rows[(self.rows["used"] == 1) & (self.rows["fenced"] == 0)]
        return {(int(r["replica"]), int(r["incarnation"])): int(r["high"]) for r in rows}

    def ended(self) -> set[Holder]:
        """The lives that may not push any more, as far as they are remembered."""
        rows = self.rows[(self.rows["used"] == 1) & (self.rows["fenced"] == 1)]
        return {(int(r["replica"]), int(r["incarnation"])) for r in rows}

    def _find_row(self, replica: int, incarnation: int) -> int:
        rows = self.rows
        own = (rows["used"] == 1) & (rows["replica"] == replica)
        (found,) = (own & (rows["incarnation"] == incarnation)).nonzero()
        if found.size:
            return int(found[0])
        if (own & (rows["incarnation"] > incarnation)).any():
            raise StaleIncarnationError(
                f"replica {replica} incarnation {incarnation} was replaced by a newer one"
            )
        (free,) = (rows["used"] == 0).nonzero()
        row = int(free[0]) if free.size else self._outlived_row()
        rows[row]["used"] = 0  # so that a kill between these stores leaves a free row
        rows[row] = (0, replica, incarnation, 0, 0, 0, 0, 0)
        rows[row]["used"] = 1
        return row

    def _outlived_row(self) -> int:
        """A fenced row of a replica that has a newer life; the earliest life first."""
        rows = self.rows
        newest: dict[int, int] = {}
        for replica, incarnation in zip(rows["replica"], rows["incarnation"], strict=True):
            newest[int(replica)] = max(newest.get(int(replica), 0), int(incarnation))
        outlived = [
            (int(row["incarnation"]), index)
            for index, row in enumerate(rows)
            if row["fenced"] and row["incarnation"] < newest[int(row["replica"])]
        ]
        if not outlived:
            raise RuntimeError(f"all {len(rows)} rows are in use by living replicas")
        return min(outlived)[1]
