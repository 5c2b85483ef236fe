"""Roles of a run as long-running Dask tasks: how their errors and their ends are noticed."""

import logging
from collections.abc import Sequence

import distributed

from engine.instructions import RunFailedError

log = logging.getLogger(__name__)
_STOP_S = 10.0


def await_end(roles: Sequence["distributed.Future[None]"]) -> None:
    """Give the roles, which have been told to stop, time to return by themselves."""
    for role in roles:
        try:
            role.result(timeout=_STOP_S)
        except TimeoutError:
            log.warning("%s did not end within %g s; it ends with its worker", role.key, _STOP_S)


def raise_errors(roles: Sequence["distributed.Future[None]"]) -> None:
    """A role that ended with an error has a bug or a broken installation: no use to go on."""
    for role in roles:
        if role.status == "error":
            error = role.exception()  # type: ignore[no-untyped-call]  # dask has no annotation here
            raise RunFailedError(f"{role.key} failed: {error!r}") from error
