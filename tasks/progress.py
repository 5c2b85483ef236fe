"""What people see of a training run: a bar or plain lines, log records, artifacts."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from tasks.live_artifacts import LiveArtifacts, View
from tasks.report.incidents import IncidentTeller
from tasks.report.mermaid import chart
from tasks.training_status import TrainingStatus

LINE_EVERY_S = 10.0
Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


@contextmanager
def progress_shown(logger: Logger, key: str) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a listener for the rows of an event log, which shows them until the block ends.

    On a terminal there is a bar, and the log's lines go to the UI only; otherwise there are lines.

    Args:
        key: of the artifacts; lower-case letters, digits and dashes.
    """
    status = TrainingStatus()
    with ExitStack() as stack:
        bar = stack.enter_context(_bar()) if sys.stderr.isatty() else None
        stack.enter_context(LiveArtifacts(key, lambda: _view(status)))
        yield TrainingProgress(status, logger, bar).listen


class TrainingProgress:
    """Takes in each row and passes on what is worth showing now."""

    def __init__(
        self,
        status: TrainingStatus,
        logger: Logger,
        bar: "Bar | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._logger = logger
        self._bar = bar
        self._clock = clock
        self._teller = IncidentTeller()
        self._next_line_s = clock() + LINE_EVERY_S

    def listen(self, row: Mapping[str, Any]) -> None:
        """Show one row."""
        self._status.see(row)
        if incident := self._teller.tell(row):
            self._logger.warning("%s %s", incident.what, incident.done)
            if self._bar:
                self._bar.say(f"{incident.what} {incident.done}")
        if row["event"] in ("validation", "finished") or self._clock() >= self._next_line_s:
            self._logger.info(self._status.line())
            self._next_line_s = self._clock() + LINE_EVERY_S
        if self._bar:
            self._bar.draw(self._status)


class Bar:
    """A progress bar on the terminal, with images/s, loss and the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID = progress.add_task("", total=1.0, line="starting")

    def draw(self, status: TrainingStatus) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=status.fraction, line=status.short_line())

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, style="yellow", markup=False, highlight=False)


@contextmanager
def _bar() -> Iterator[Bar]:
    """A bar, while which the log's records below errors stay off the terminal."""
    columns = (BarColumn(18), TextColumn("{task.fields[line]}"))
    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(_errors_only)
    try:
        with Progress(*columns, console=Console(stderr=True)) as progress:
            yield Bar(progress)
    finally:
        for handler in handlers:
            handler.removeFilter(_errors_only)


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _view(status: TrainingStatus) -> View:
    losses = list(status.losses)
    norms = chart("largest element of the gradient", "gradient", list(status.gradient_norms))
    curves = "\n\n".join(filter(None, [chart("training loss", "loss", losses), norms]))
    return View(round(100 * status.fraction, 1), status.line() if losses else "starting", curves)
