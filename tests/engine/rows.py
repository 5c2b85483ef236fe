"""Rows of the event log, by event."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


class Listener(list[Row]):
    """Keeps every row that it hears."""

    def __call__(self, row: Row) -> None:
        self.append(row)

    def of(self, event: str) -> list[Row]:
        return [row for row in self if row["event"] == event]


class When(NamedTuple):
    """What to do at the n-th row of an event; `number` None: at each."""

    event: str
    number: int | None
    act: Callable[[Row], None]


class Meddler(Listener):
    """A listener that interferes."""

    def __init__(self, *reactions: When) -> None:
        self.reactions = reactions

    def __call__(self, row: Row) -> None:
        super().__call__(row)
        for event, number, act in self.reactions:
            if row["event"] == event and number in (None, len(self.of(event))):
                act(row)


class StoppedByTestError(Exception):
    """Raised by `stop`."""


def stop(row: Row) -> None:
    """End the run from its listener."""
    raise StoppedByTestError


def in_file(folder: Path) -> list[Row]:
    """The rows of a run's event log."""
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
