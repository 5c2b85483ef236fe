"""Waiting for what another process does."""

import time
from collections.abc import Callable
from contextlib import suppress

import psutil


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Return once it is true; fail after half a minute."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


def survivors(owner: int) -> set[int]:
    """Processes that wait for the death of `owner`."""
    found = set()
    for child in psutil.Process(owner).children():
        with suppress(psutil.NoSuchProcess):  # it has just been killed
            found |= {child.pid} if "engine.survivor" in child.cmdline() else set()
    return found
