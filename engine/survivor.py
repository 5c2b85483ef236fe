"""A process that outlives a run which is killed whole, to free the memory that it leaves.

It has a session of its own, so that what ends the run's processes as a group does not end it. It
sleeps until the run's owner is dead, and then does at once what the next start on this host would
do (`engine.salvage`): the checkpoint that was still owed is written, and the memory freed. Where it
was killed too, the next start does that.

python -m engine.survivor FOLDER
"""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from engine import memory

_ROOT = Path(__file__).parents[1]
#: A stop meant for the run's processes, which write a last checkpoint then and end by themselves.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Survivor:
    """The process, as the owner of a memory folder has it."""

    def __init__(self, folder: Path) -> None:
        """Start it for the memory `folder` of this process."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "engine.survivor", str(folder)],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """The folder has been removed: there is nothing to wait for."""
        self._process.kill()
        self._process.wait()


def main(folder: Path) -> None:
    """Wait until the owner of `folder` is dead, then have nothing of it left."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    _await_death(folder)
    if folder.exists():
        # Only now: torch takes 200 MB, and nearly every survivor is dismissed before.
        from engine.salvage import settle

        settle(folder)


def _await_death(folder: Path) -> None:
    try:
        owner = os.pidfd_open(memory.owner_of(folder))
    except ProcessLookupError:
        return
    if not memory.is_left_over(folder):  # else another process has the number of a dead owner
        poll = select.poll()
        poll.register(owner, select.POLLIN)
        poll.poll()
    os.close(owner)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
