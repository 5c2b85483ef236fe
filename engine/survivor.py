"""A process that outlives a run which is killed whole, to free the memory that it leaves.

It has a session of its own, so that what ends the run's processes as a group does not end it. It
sleeps until the run's owner is dead, and then does at once what the next start on this host would
do (`engine.salvage`): the checkpoint that was still owed is written, and the memory freed. While
the run lives, one that is killed is replaced; where both die at once, the next start does the rest.

python -m engine.survivor FOLDER
"""

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

from engine import memory

_ROOT = Path(__file__).parents[1]
#: A stop meant for the run's processes, which write a last checkpoint then and end by themselves.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: So long after its end another one is started: not at once, for that may end at once, too.
_PAUSE_S = 0.5


class Survivor:
    """The process, as the owner of a memory folder has it."""

    def __init__(self, folder: Path) -> None:
        """Start it for the memory `folder` of this process."""
        self._folder = folder
        self._dismissed = threading.Event()
        self._changing = threading.Lock()
        self._process = self._start()
        self._keeper = threading.Thread(target=self._replace, name="survivor", daemon=True)
        self._keeper.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """The folder has been removed: there is nothing to wait for."""
        with self._changing:
            self._dismissed.set()
            self._process.kill()
        self._keeper.join()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "engine.survivor", str(self._folder)],
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _replace(self) -> None:
        """Start another one whenever it ends."""
        while True:
            self._process.wait()
            self._dismissed.wait(_PAUSE_S)
            with self._changing:
                if self._dismissed.is_set():
                    return
                self._process = self._start()


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
