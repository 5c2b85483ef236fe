"""The queues between a Dask nanny and its worker: pipes.

multiprocessing's own have three semaphores each, files in shared memory with a name, which stay for
ever if all who would remove them are killed. They guard against several readers and writers at
once. Here one thread reads, and where two processes write, messages are so small that the kernel
writes each whole.
"""

from multiprocessing.connection import Connection
from queue import Empty
from typing import Any

from distributed import nanny
from distributed.utils import get_mp_context


class PipeQueue:
    """As much of `multiprocessing.Queue` as Dask's nannies use."""

    def __init__(self) -> None:
        context = get_mp_context()  # type: ignore[no-untyped-call]
        self._reader: Connection[Any, Any]
        self._writer: Connection[Any, Any]
        self._reader, self._writer = context.Pipe(duplex=False)
        self._is_closed = False

    def put(self, message: Any) -> None:
        """Send it now, not later in a thread.

        Raises:
            ValueError: this process has closed the queue.
        """
        if self._is_closed:
            raise ValueError("the queue is closed")
        self._writer.send(message)

    def get(self) -> Any:
        return self._reader.recv()

    def get_nowait(self) -> Any:
        if not self._reader.poll():
            raise Empty
        return self._reader.recv()

    def close(self) -> None:
        """Put no more from this process; a thread of it may still be in `get`."""
        self._is_closed = True

    def join_thread(self) -> None:
        """All is sent: there is no thread."""


class _Context:
    """What a nanny asks of multiprocessing itself."""

    Queue = PipeQueue


def replace_queues() -> None:
    """Have all nannies that this process starts use pipes, for which Dask has no setting."""
    nanny.get_mp_context = _Context  # type: ignore[attr-defined]
