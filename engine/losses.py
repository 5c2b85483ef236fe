"""Which processes of which role were lost, how each ended, and when that is too often. Pure.

How a process ended is told by its parent, often after its connection has broken: so a run that has
to give up waits a moment for that before it sums up.
"""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field

from engine.instructions import RunFailedError

#: So many lives of a role in a row that end before they do anything: the next one will, too.
MAX_FRUITLESS = 3
#: The parents' word on how processes ended is waited for no longer than this.
TELLING_S = 1.0


@dataclass
class _Lives:
    """The lost processes of one role."""

    reasons: dict[int, str] = field(default_factory=dict)  # pid -> how the loss was noticed
    fruitless: int = 0  # in a row, up to now
    restarts: int = 0


class Losses:
    """Counts lost processes by role; `check` raises once one was lost too often."""

    def __init__(self, max_restarts: int) -> None:
        self._max_restarts = max_restarts
        self._lives: dict[tuple[str, int], _Lives] = {}
        self._endings: dict[int, str] = {}  # pid -> how it ended
        self._verdict: str | None = None
        self._untold: set[int] = set()  # pids lost up to the verdict
        self._verdict_since: float | None = None

    def lost(self, role: str, index: int, pid: int, worker: str, reason: str) -> None:
        """A process is gone that was needed; `worker` is the address of its Dask worker."""
        lives = self._of(role, index)
        lives.reasons[pid] = reason
        lives.restarts += 1
        lives.fruitless += 1
        if lives.fruitless > MAX_FRUITLESS:
            self._give_up(
                f"{role} {index} was lost {lives.fruitless} times in a row before it did anything, "
                f"last as process {pid} of worker {worker} ({reason}): a library or its data may "
                "be missing or broken there"
            )
        if lives.restarts > self._max_restarts:
            self._give_up(
                f"{role} {index} was lost {lives.restarts} times, cluster.max_restarts="
                f"{self._max_restarts}; the last time: {reason}"
            )

    def of_use(self, role: str, index: int) -> None:
        """A process of this role has done something: the role is not hopeless."""
        self._of(role, index).fruitless = 0

    def ended(self, pid: int, code: int, oom_kills: int = 0) -> None:
        """A process ended; the arguments are those of `in_words`."""
        self._endings[pid] = in_words(code, oom_kills)

    def check(self, now: float) -> None:
        """To be called from time to time.

        Raises:
            RunFailedError: a role was lost too often; it names how each lost process ended.
        """
        if self._verdict is None:
            return
        if self._verdict_since is None:
            self._verdict_since = now
        if self._untold <= self._endings.keys() or now - self._verdict_since > TELLING_S:
            raise RunFailedError("\n  ".join([self._verdict, *self._summary()]))

    def _give_up(self, verdict: str) -> None:
        if self._verdict is None:
            self._verdict = verdict
            # Not those lost while these are waited for: who goes on dying would be waited for, too.
            self._untold = {pid for lives in self._lives.values() for pid in lives.reasons}

    def _summary(self) -> Iterator[str]:
        for (role, index), lives in sorted(self._lives.items()):
            if lives.reasons:
                ends = (
                    f"process {pid} {self._endings.get(pid, f'was lost ({reason})')}"
                    for pid, reason in lives.reasons.items()
                )
                yield f"{role} {index}: {'; '.join(ends)}"

    def _of(self, role: str, index: int) -> _Lives:
        return self._lives.setdefault((role, index), _Lives())


def in_words(code: int, oom_kills: int = 0) -> str:
    """How a process ended.

    Args:
        code: its exit code as Python gives it; -9: killed by signal 9.
        oom_kills: how often the kernel killed for want of memory where the process lived.
    """
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:
        name = ""
    cause = f", cgroup oom_kill={oom_kills}: out of memory" if _is_oom(code, oom_kills) else ""
    return f"was killed by signal {-code}{name}{cause}"


def _is_oom(code: int, oom_kills: int) -> bool:
    return code == -signal.SIGKILL and oom_kills > 0
