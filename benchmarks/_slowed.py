"""A process of this host made slower: by a CPU quota, or by stopping it most of the time."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 40_000


class Slowed:
    """Processes that were slowed down; all run free again when the block ends."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.means = ""  # by which the last process was slowed

    def __enter__(self) -> "Slowed":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def slow(self, pid: int, factor: float) -> None:
        """Let `pid` have 1/factor of one core."""
        for means in (_quota_v1, _quota_v2):
            with suppress(OSError):
                self._stack.enter_context(means(pid, factor))
                self.means = "a CPU quota"
                return
        self._stack.enter_context(_duty_cycle(pid, factor))
        self.means = "SIGSTOP and SIGCONT"


@contextmanager
def _quota_v1(pid: int, factor: float) -> Iterator[None]:
    with _group(_ROOT / "cpu", pid, {"cpu.cfs_period_us": _PERIOD_US}, factor, "cpu.cfs_quota_us"):
        yield


@contextmanager
def _quota_v2(pid: int, factor: float) -> Iterator[None]:
    with _group(_ROOT, pid, {}, factor, "cpu.max"):
        yield


@contextmanager
def _group(
    parent: Path, pid: int, settings: dict[str, int], factor: float, quota: str
) -> Iterator[None]:
    """A control group of the process alone; OSError where none can be made."""
    group = parent / f"verydeep-{pid}"
    group.mkdir()
    try:
        for name, value in settings.items():
            (group / name).write_text(str(value))
        share = round(_PERIOD_US / factor)
        (group / quota).write_text(f"{share} {_PERIOD_US}" if quota == "cpu.max" else str(share))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with suppress(OSError):  # it has ended
            (parent / "cgroup.procs").write_text(str(pid))
        with suppress(OSError):
            group.rmdir()


@contextmanager
def _duty_cycle(pid: int, factor: float) -> Iterator[None]:
    """Stop the process for all but 1/factor of each period."""
    ended = threading.Event()
    period_s = 5 * _PERIOD_US / 1e6

    def work() -> None:
        with suppress(ProcessLookupError):
            while not ended.is_set():
                os.kill(pid, signal.SIGSTOP)
                ended.wait(period_s * (1 - 1 / factor))
                os.kill(pid, signal.SIGCONT)
                ended.wait(period_s / factor)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
