"""Processes of this host that the coordinator has given up."""

import logging
import os
import signal

log = logging.getLogger(__name__)


def end_process(pid: int) -> None:
    """End a process of this host that no longer answers; its nanny starts another one."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        log.info("process %d had already ended", pid)
