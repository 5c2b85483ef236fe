"""Real kills: SIGKILL to real processes, counted by role over a whole run of the tests.

A kill counts once the process is known to have died of it. The count is kept in a file, since
programs that tests start kill processes, too.
"""

import json
import os
import select
import signal
import tempfile
import time
from collections import Counter
from pathlib import Path

#: What is killed in a run of all tests, each at least once.
ROLES = (
    "replica",
    "shard",
    "flow",
    "dask worker",
    "dask scheduler",
    "prefect server",
    "staging",
    "synchronous worker",
    "sandblaster coordinator",
    "sandblaster replica",
    "sandblaster shard",
)
MIN_KILLS = 25
_TALLY = "VERYDEEP_REAL_KILLS"  # environment variable: the file of the count
_DEATH_S = 10.0


def begin() -> None:
    """Start counting anew, for this process and all that it starts."""
    descriptor, os.environ[_TALLY] = tempfile.mkstemp(prefix="verydeep-kills-")
    os.close(descriptor)


def end() -> None:
    """Forget the count."""
    Path(os.environ.pop(_TALLY)).unlink()


def tally() -> Counter[str]:
    """Role -> processes killed since `begin`."""
    lines = Path(os.environ[_TALLY]).read_text().splitlines()
    return Counter(json.loads(line)["role"] for line in lines)


def told(counts: Counter[str]) -> str:
    """One line for people."""
    roles = ", ".join(f"{role} {counts[role]}" for role in ROLES)
    return f"{counts.total()} real kills: {roles}"


def real_kill(pid: int, role: str) -> None:
    """Kill another process, and return once it has died of that.

    It is stopped first, wherever it is, and seen to be: nothing but the signal can end it then.
    """
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGSTOP)
        _wait_until_stopped(pid)
        signal.pidfd_send_signal(process, signal.SIGKILL)
        poll = select.poll()
        poll.register(process, select.POLLIN)
        assert poll.poll(1000 * _DEATH_S), f"{role} {pid} outlived SIGKILL by {_DEATH_S:g} s"
    finally:
        os.close(process)
    _count(role, pid)


def was_killed(role: str, returncode: int | None) -> None:
    """Count a process that its parent has seen end of SIGKILL; AssertionError if not of that."""
    assert returncode == -signal.SIGKILL, f"{role} ended with {returncode}, not by SIGKILL"
    _count(role, 0)


def _count(role: str, pid: int) -> None:
    assert role in ROLES, f"{role!r} is none of {ROLES}"
    if path := os.environ.get(_TALLY):  # not set in a program that a person has started
        with open(path, "a") as file:
            file.write(json.dumps({"role": role, "pid": pid}) + "\n")


def _wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + _DEATH_S
    while (state := process_state(pid)) != "T":
        assert state not in "ZX", f"process {pid} had ended before it was killed"
        assert time.monotonic() < deadline, f"process {pid} does not stop, state {state}"
        time.sleep(0.0005)


def process_state(pid: int) -> str:
    """The letter of the kernel's state of a process, X when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"
