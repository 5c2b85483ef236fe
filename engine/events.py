"""The event log of a run: one JSON object a line, on disk and to a listener."""

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
Row = dict[str, Any]
#: Called in the coordinator's thread for every row.
Listener = Callable[[Row], None]


def ignore(row: Row) -> None:
    """A listener that does not care."""


class EventLog:
    """Stamps rows with seconds of training, which go on where an earlier attempt ended."""

    def __init__(self, path: Path, listen: Listener, elapsed_s: float = 0.0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A last attempt that was killed while it wrote: its rest must not swallow our row.
        self._torn = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = path.open("ab", buffering=0)
        self._listen = listen
        self._start = time.monotonic() - elapsed_s

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, those of earlier attempts included."""
        return time.monotonic() - self._start

    def record(self, event: str, **values: Any) -> None:
        """Write one row; one that the disk refuses is told to the listener alone."""
        self.write(event, self.elapsed_s, **values)

    def write(self, event: str, time_s: float, **values: Any) -> None:
        """Write one row that belongs to another moment of training."""
        row = {"time_s": round(time_s, 3), "event": event, **values}
        line = (json.dumps(row) + "\n").encode()
        try:
            self._torn = self._file.write(b"\n" * self._torn + line) < self._torn + len(line)
        except OSError as error:
            log.warning("%s: row %r was not written: %s", self._file.name, event, error)
        self._listen(row)

    def close(self) -> None:
        self._file.close()
