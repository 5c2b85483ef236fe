"""How often the kernel has killed a process for want of memory, where a given process lives.

A limit on memory is set on a cgroup: by a container, by a batch system, by systemd. Whoever goes
over it is killed by SIGKILL, as by a person's `kill -9`; only the kernel's own count tells the two
apart. It counts there, too, what it kills because the whole machine has no memory left.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/sys/fs/cgroup")


def counter_of(pid: int) -> Path | None:
    """The file in which the kernel counts the kills in a living process's cgroup, if it does.

    Raises:
        FileNotFoundError: there is no such process.
    """
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next((path for path in _candidates(lines) if _counts(path)), None)


def oom_kills(counter: Path) -> int:
    """The count in such a file; 0 when it is there no longer."""
    try:
        text = counter.read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        name, _, count = line.partition(" ")
        if name == "oom_kill":
            return int(count)
    return 0


def _candidates(lines: list[str]) -> Iterator[Path]:
    """Version 1 has a tree for memory alone, version 2 one for everything.

    In a container the path may be that of its host, and the mounted tree begins at the container.
    """
    for line in lines:
        _, controllers, place = line.split(":", 2)
        v1 = "memory" in controllers.split(",")
        if v1 or not controllers:
            root = _CGROUPS / "memory" if v1 else _CGROUPS
            name = "memory.oom_control" if v1 else "memory.events"
            yield root / place.lstrip("/") / name
            yield root / name


def _counts(path: Path) -> bool:
    try:
        return "oom_kill " in path.read_text()
    except OSError:
        return False
