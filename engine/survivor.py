"""A process that outlives a run which is killed whole, to write the checkpoint that it owes.

It has a session of its own, so that what ends the run's processes as a group does not end it. It
has all of the run's memory open (`engine.keeper`) and sleeps until the run's owner is dead. Then it
writes the checkpoint that is still owed (`engine.salvage`) and ends, and the memory is freed. While
the run lives, one that is killed is replaced; where both die at once, the kernel frees the memory,
and the newest checkpoint counts.

python -m engine.survivor FOLDER < SOCKET
"""

import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from engine import memory_folder
from engine.keeper import Bequest, Keeper

_ROOT = Path(__file__).parents[1]
#: A stop meant for the run's processes, which write a last checkpoint then and end by themselves.
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: So long after its end another one is started: not at once, for that may end at once, too.
_PAUSE_S = 0.5
#: A disk that refuses the checkpoint is tried again so often, and so long.
_AGAIN_S = 1.0
PATIENCE_S = 600.0
#: A dead owner's sockets are closed a moment before it's seen to be dead.
_DYING_MS = 5000
#: Beside the memory: locked by the survivor as long as it lives, and tells what it does.
NOTE = "survivor"
WATCHING, SETTLING, REFUSED = "watching", "settling", "refused"


class Survivor:
    """The process, as the owner of a memory folder has it."""

    def __init__(self, folder: Path, keeper: Keeper) -> None:
        """Start it for the memory `folder` of this process."""
        self._folder, self._keeper = folder, keeper
        self._dismissed = threading.Event()
        self._changing = threading.Lock()
        self._process = self._start()
        self._replacing = threading.Thread(target=self._replace, name="survivor", daemon=True)
        self._replacing.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """The run has ended as it should: there is nothing to wait for."""
        with self._changing:
            self._dismissed.set()
            self._process.kill()
        self._replacing.join()

    def _start(self) -> "subprocess.Popen[bytes]":
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "engine.survivor", str(self._folder)],
                cwd=_ROOT,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._keeper.bequeath(ours)
        return process

    def _replace(self) -> None:
        """Start another one whenever it ends."""
        while True:
            self._process.wait()
            self._dismissed.wait(_PAUSE_S)
            with self._changing:
                if self._dismissed.is_set():
                    return
                self._process = self._start()


class Note:
    """What the survivor of a folder tells whoever starts next, and the lock that it holds."""

    def __init__(self, folder: Path) -> None:
        """Take the lock; there is no other survivor that lives."""
        self._file = (folder / NOTE).open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def say(self, state: str, reason: str = "") -> None:
        self._file.seek(0)
        self._file.write(f"{os.getpid()} {state} {reason}\n")
        self._file.truncate()
        self._file.flush()

    def close(self) -> None:
        """Let go of the lock, as the end of the process does."""
        self._file.close()


def main(folder: Path) -> None:
    """Wait until the owner of `folder` is dead, then have nothing of it left."""
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    bequest = Bequest(socket.socket(fileno=sys.stdin.fileno()))
    note = Note(folder)
    note.say(WATCHING)
    if _outlived(folder, bequest):
        bequest.read_all()
        bequest.enter(folder)
        _settle(folder, note)


def _outlived(folder: Path, bequest: Bequest) -> bool:
    """Take what is bequeathed until the owner of `folder` is dead; False: it wants another heir."""
    try:
        owner = os.pidfd_open(memory_folder.owner_of(folder))
    except ProcessLookupError:
        return True
    with os.fdopen(owner) as dead:
        if memory_folder.is_left_over(folder):  # another process has the number of a dead owner
            return True
        poll = select.poll()
        poll.register(dead, select.POLLIN)
        poll.register(bequest, select.POLLIN)
        while True:
            ready = {descriptor for descriptor, _ in poll.poll()}
            if dead.fileno() in ready:
                return True
            if not bequest.read():
                poll.unregister(bequest)
                return bool(poll.poll(_DYING_MS))


def _settle(folder: Path, note: Note) -> None:
    """Write the checkpoint that is owed; a disk that refuses it may have room later."""
    note.say(SETTLING)
    # Only now: torch takes 200 MB, and nearly every survivor is dismissed before.
    from engine.push import FencedShardError
    from engine.salvage import salvage

    patient_until = time.monotonic() + PATIENCE_S
    while time.monotonic() < patient_until:
        note.say(SETTLING)
        try:
            salvage(folder)
            break
        except (OSError, FencedShardError) as error:
            note.say(REFUSED, str(error))
            time.sleep(_AGAIN_S)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
