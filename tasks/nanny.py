"""The parent process of a Dask worker: starts it, and tells how it ended."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from distributed import Nanny, Status

from engine.losses import MAX_FRUITLESS, in_words
from engine.roles import ENDINGS, Ending
from tasks.out_of_memory import counter_of, oom_kills

#: How long closing waits for a busy worker before it is killed.
CLOSE_TIMEOUT_S = 2.0
_LOOK_S = 0.02


class WatchfulNanny(Nanny):
    """Tells how its worker's process ended, and closes soon: a replica or shard that has not
    stopped when asked to is not waited for.
    """

    _worker_pid = 0
    _oom_counter: Path | None = None
    _oom_kills = 0  # when the worker began
    _ending = ""  # how the last process ended

    async def instantiate(self) -> Any:
        """Start the worker's process, again if it is killed meanwhile.

        Dask itself starts another only for one that had been there.

        Raises:
            RuntimeError: it was killed MAX_FRUITLESS times more.
        """
        for _ in range(1 + MAX_FRUITLESS):
            status = await self._instantiate()
            if status is Status.running or self.status is not Status.init:
                return status
        raise RuntimeError(
            f"the worker of {', '.join(self.resources)} was lost {1 + MAX_FRUITLESS} times in a "
            f"row while it started, the last time its process {self._ending}"
        )

    async def _instantiate(self) -> Any:
        """Start it once; note what nobody knows once it has ended."""
        starting = asyncio.ensure_future(super().instantiate())
        try:
            while not (await asyncio.wait({starting}, timeout=_LOOK_S))[0]:
                self._worker_pid = self.pid or self._worker_pid
            self._worker_pid = self.pid or self._worker_pid
            self._note_oom_kills()
            return starting.result()
        finally:
            starting.cancel()

    def _on_worker_exit_sync(self, exitcode: int) -> None:
        self._ending = in_words(exitcode, self._new_oom_kills())
        if self.status not in (Status.closing, Status.closed, Status.closing_gracefully):
            for resource in self.resources:
                ending = Ending(resource, self._worker_pid, exitcode, self._new_oom_kills())
                self.log_event(ENDINGS, ending._asdict())  # type: ignore[no-untyped-call]
        super()._on_worker_exit_sync(exitcode)  # type: ignore[no-untyped-call]

    async def _log_event(self, topic: str | list[str], msg: Any) -> None:
        with suppress(OSError):  # the cluster is closing: nobody is left to be told
            await super()._log_event(topic, msg)  # type: ignore[no-untyped-call]

    def _note_oom_kills(self) -> None:
        with suppress(FileNotFoundError):  # it has ended already
            self._oom_counter = counter_of(self._worker_pid)
            self._oom_kills = oom_kills(self._oom_counter) if self._oom_counter else 0

    def _new_oom_kills(self) -> int:
        """Kills for want of memory where the worker lived, while it lived."""
        counter = self._oom_counter
        return oom_kills(counter) - self._oom_kills if counter else 0

    async def close(  # type: ignore[override]  # as Dask's own: its base classes disagree
        self, timeout: float = CLOSE_TIMEOUT_S, reason: str = "nanny-close"
    ) -> Literal["OK"]:
        return await super().close(timeout, reason)
