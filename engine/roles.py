"""Roles of a run as long-running Dask tasks: how their errors and their ends are noticed."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import distributed

from engine.coordinator_server import CoordinatorServer, Heard
from engine.instructions import RunFailedError

log = logging.getLogger(__name__)
_STOP_S = 10.0
_LOOK_S = 0.01
#: Where whoever started a worker's process tells Dask how it ended: an Ending, as a dictionary.
ENDINGS = "verydeep-process-ended"


class Ending(NamedTuple):
    """How a worker's process ended."""

    resource: str  # that the worker offers: "replica-0"
    pid: int
    code: int  # exit code; -9: killed by signal 9
    oom_kills: int = 0  # by the kernel, for want of memory, where the process lived


@contextmanager
def endings_heard(client: distributed.Client, hear: Callable[[Ending], None]) -> Iterator[None]:
    """Call `hear`, in Dask's thread, whenever a worker's process has ended."""
    client.subscribe_topic(ENDINGS, lambda event: hear(Ending(**event[1])))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        client.unsubscribe_topic(ENDINGS)  # type: ignore[no-untyped-call]


def await_end(roles: Sequence["distributed.Future[None]"], server: CoordinatorServer) -> None:
    """Give the roles, which have been told to stop, time to return by themselves.

    One whose worker has just died is run again, and sent home when it says hello to `server`.

    Raises:
        RunFailedError: a role ended with an error.
    """
    deadline = time.monotonic() + _STOP_S
    while not all(map(_is_over, roles)) and time.monotonic() < deadline:
        event = server.next_event(_LOOK_S)
        if isinstance(event, Heard) and event.message["op"] == "hello":
            server.send(event.peer, {"op": "stop"})
    raise_errors(roles)  # what they returned is nothing to wait for: its worker may be dead
    for role in roles:
        if not _is_over(role):
            log.warning("%s did not end within %g s; it ends with its worker", role.key, _STOP_S)


def raise_errors(roles: Sequence["distributed.Future[None]"]) -> None:
    """A role that ended with an error has a bug or a broken installation: no use to go on.

    Neither is it without Dask's scheduler, whose workers end, too. A role that is lost is none of
    that: it had returned, and Dask runs it again, for the worker that had its result is dead.
    """
    for role in roles:
        if role.status == "cancelled":
            raise RunFailedError(
                f"{role.key} is cancelled: Dask's scheduler has ended, or restarted. "
                "The same command goes on from here, once there is one again"
            )
        if role.status == "error":
            error = role.exception()  # type: ignore[no-untyped-call]  # dask has no annotation here
            raise RunFailedError(f"{role.key} failed: {error!r}") from error


def _is_over(role: "distributed.Future[None]") -> bool:
    return role.status not in ("pending", "lost")
