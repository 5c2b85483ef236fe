"""Progress and curve of a running training in the Prefect UI."""

import logging
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import NamedTuple, Self, cast
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

log = logging.getLogger(__name__)


class View(NamedTuple):
    """What the UI shows."""

    percent: float
    line: str
    curve: str  # Markdown; may be empty


class LiveArtifacts:
    """Posts the newest view every few seconds, from a thread of its own.

    So a server that is slow or has gone away delays nobody but that thread.
    """

    def __init__(self, key: str, look: Callable[[], View], interval_s: float = 2.0) -> None:
        """Post what `look`, called in the thread, returns.

        Args:
            key: of the artifacts; lower-case letters, digits and dashes.
        """
        self._key = key
        self._look = look
        self._interval_s = interval_s
        self._posted: View | None = None
        self._progress: UUID | None = None
        self._curve: UUID | None = None
        self._closing = threading.Event()
        # The context carries the run that artifacts belong to; threads do not inherit it.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="artifacts", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._thread.join(timeout=5.0)

    def _run(self) -> None:
        while not self._closing.wait(self._interval_s):
            self._post()
        self._post()

    def _post(self) -> None:
        try:
            view = self._look()
            if view == self._posted:
                return
            self._post_progress(view)
            self._post_curve(view)
            self._posted = view
        except Exception as error:  # whatever is wrong with the server, training goes on
            log.info("artifacts were not posted: %r", error)

    def _post_progress(self, view: View) -> None:
        if self._progress is None:
            created = create_progress_artifact(
                view.percent, key=f"progress-{self._key}", description=view.line
            )
            self._progress = cast(UUID, created)  # a coroutine only inside an event loop
        else:
            update_progress_artifact(self._progress, view.percent, description=view.line)

    def _post_curve(self, view: View) -> None:
        if self._curve is None and view.curve:
            created = create_markdown_artifact(view.curve, key=f"curves-{self._key}")
            self._curve = cast(UUID, created)
        elif self._curve is not None:
            get_client(sync_client=True).update_artifact(
                self._curve, ArtifactUpdate(data=view.curve)
            )
