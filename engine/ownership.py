"""Who may write to a shard's memory: one process, which every successor ends first.

The epoch in the memory tells an owner that it was replaced, but an owner looks at it between pushes
only. One that was stopped in the middle of a block and wakes after its successor has begun would
go on writing that block. So an owner holds a lock for as long as it lives, beside a note of who it
is, and a successor kills the process of the note and waits for the lock. The kernel lets go of the
lock when the process is dead: then all its stores are done, and no other will come.
"""

import fcntl
import os
import time
from pathlib import Path

from engine.processes import end_process, started_at
from engine.push import FencedShardError

#: A process that was killed is gone within this time, unless the kernel holds it.
_DEATH_S = 5.0
_POLL_S = 0.002
_NOTE_BYTES = 80


class Ownership:
    """The lock on one shard's memory, held until `release` or until this process dies."""

    def __init__(self, folder: Path, index: int, epoch: int, patience_s: float = 0.0) -> None:
        """Take the memory of shard `index` in `folder` over from whoever has it.

        Args:
            patience_s: how long the owner may take to let go by itself before it is killed.

        Raises:
            FencedShardError: it belongs to this epoch or a later one already, or to a process that
                cannot be ended.
        """
        self._descriptor = os.open(
            folder / f"shard-{index:02d}.owner", os.O_RDWR | os.O_CREAT, mode=0o600
        )
        try:
            self._take(index, epoch, patience_s)
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Let a successor in."""
        os.close(self._descriptor)

    def _take(self, index: int, epoch: int, patience_s: float) -> None:
        patient_until = time.monotonic() + patience_s
        while not self._locked():
            time.sleep(_POLL_S)
            if (now := time.monotonic()) < patient_until:
                continue
            pid, owner_epoch = self._end_owner(epoch)
            if now > patient_until + _DEATH_S:
                raise FencedShardError(
                    f"epoch {epoch} wants shard {index}, which process {pid} holds in epoch "
                    f"{owner_epoch} and does not let go of: end that process"
                )
        note = f"{os.getpid()} {started_at(os.getpid())} {epoch}\n".encode()
        os.pwrite(self._descriptor, note.ljust(_NOTE_BYTES), 0)

    def _locked(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _end_owner(self, epoch: int) -> tuple[int, int]:
        """Kill the process that holds the lock, unless it is this one; return it and its epoch."""
        note = os.pread(self._descriptor, _NOTE_BYTES, 0).split()
        if not note:  # it has the lock and is about to say so
            return 0, 0
        pid, started, owner_epoch = map(int, note)
        if owner_epoch >= epoch:
            raise FencedShardError(f"epoch {epoch} wants a shard that epoch {owner_epoch} owns")
        if pid != os.getpid() and started_at(pid) == started:
            end_process(pid)
        return pid, owner_epoch
