"""Ending a process of this host that no longer answers."""

import logging
import os
import signal

log = logging.getLogger(__name__)


def end_process(pid: int) -> None:
    """End the process `pid` of this host; its nanny starts another one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        log.info("process %d had already ended", pid)
