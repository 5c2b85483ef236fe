"""Processes of this host: telling one from a later one of the same number, and ending one."""

import logging
import os
import signal

import psutil

log = logging.getLogger(__name__)


def started_at(pid: int) -> int | None:
    """When a process started, in hundredths of a second from boot; None if there is none.

    Setting the clock moves both, so that the number stays.
    """
    try:
        return round(100 * (psutil.Process(pid).create_time() - psutil.boot_time()))
    except psutil.NoSuchProcess:
        return None


def end_process(pid: int) -> None:
    """End the process `pid` of this host; its nanny starts another one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        log.info("process %d had already ended", pid)
