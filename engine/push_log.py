"""A shard's log of pushes on disk: what `durability=power` acknowledges outlives the machine.

A push is written before it is begun; whoever wants to acknowledge it waits until it is synced.
The sync runs outside the shard's lock and covers everything written until it began, so that it is
shared by all who wait (group commit), and pushes go on meanwhile.

    log/shard-00/owner             the epoch that may acknowledge
    log/shard-00/<...>.log         see `engine.log_file`
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from engine.checkpoint import sync
from engine.frames import Buffer
from engine.log_file import encode_fence, encode_head, encode_push, file_name
from engine.shard import FencedShardError, Push

#: While there is too much in the log, a checkpoint is asked for no more often than this.
_ASK_S = 1.0
_OWNER_BYTES = 8


class LogFailedError(Exception):
    """The log cannot be written: nothing may be acknowledged from here on."""


def ignore() -> None:
    """Do nothing."""


class PushLog:
    """The log of one shard under one owner. `push`, `fence` and `rotate` need the shard's lock."""

    def __init__(
        self,
        folder: Path,
        epoch: int,
        limit_bytes: int,
        *,
        on_failure: Callable[[], None] = ignore,
        on_long: Callable[[], None] = ignore,
    ) -> None:
        """Become the owner of the log in `folder`; earlier owners can acknowledge no more.

        Args:
            limit_bytes: of records since the last checkpoint; beyond it there is no room.
            on_failure: called once, when the log has failed.
            on_long: asks for a checkpoint; called when half of the limit is used.

        Raises:
            FencedShardError: a later epoch owns it.
        """
        self._folder, self._epoch = folder, epoch
        self._limit_bytes = limit_bytes
        self._on_failure, self._on_long = on_failure, on_long
        self._asked = -_ASK_S
        self._changed = threading.Condition()
        self._syncing = self._closed = False
        self._file = -1
        #: (version, path, bytes) of each file; the last one is written to
        self._files: list[tuple[int, Path, int]] = []
        self.error: LogFailedError | None = None
        self.written = self.durable = 0  # bytes of records under this owner
        self.num_syncs = 0
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
        self._owner = os.open(folder / "owner", os.O_RDWR | os.O_CREAT, 0o600)
        self._become_owner()

    def begin(self, version: int, rows: Any, earlier: Sequence[tuple[int, Path]] = ()) -> None:
        """Start writing, the shard being at `version` with the table `rows`.

        Args:
            earlier: version and path of the files that dead owners have left.
        """
        try:
            for start, path in earlier:
                # They hold what a dead owner has applied, but perhaps not synced.
                sync(path)
                self._files.append((start, path, path.stat().st_size))
            self._start_file(version, rows)
        except OSError as error:
            raise self._failed(error) from error

    def push(self, version: int, push: Push, grad: Tensor) -> None:
        """Write the push that makes `version`, before it is applied.

        Raises:
            LogFailedError: it is not in the log.
        """
        self._append(encode_push(version, push, grad))

    def fence(self, version: int, replica: int, incarnation: int) -> None:
        """Write that a life is refused from `version` on; LogFailedError as for a push."""
        self._append((encode_fence(version, replica, incarnation),))

    def wait(self, end: int) -> None:
        """Return when the first `end` bytes are on the disk; not to be called with the lock.

        Raises:
            LogFailedError: they are not, and never will be for certain.
            FencedShardError: a successor has taken the log over.
        """
        with self._changed:
            while self.durable < end:
                if self.error:
                    raise self.error
                if self._syncing:
                    self._changed.wait()
                else:
                    self._sync_file()
            self._check_owner()

    def rotate(self, version: int, rows: Any) -> None:
        """Go on in a new file, which begins with `version`: that of a checkpoint to be."""
        if version == self._files[-1][0]:
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._syncing)
            if self.durable < self.written and not self.error:
                self._sync_file()
            if self.error:
                raise self.error
            os.close(self._file)
            self._file = -1
            try:
                self._start_file(version, rows)
            except OSError as error:
                raise self._failed(error) from error

    def forget(self, version: int) -> None:
        """Remove what is covered by a durable checkpoint that has `version`."""
        while len(self._files) > 1 and self._files[1][0] <= version:
            self._files.pop(0)[1].unlink(missing_ok=True)

    def has_room(self) -> bool:
        """False while there is too much in the log; then a checkpoint is asked for.

        Raises:
            ConnectionError: it is closed.
        """
        if self._closed:
            raise ConnectionError("the shard is not served any more")
        has_room = sum(size for _, _, size in self._files) < self._limit_bytes
        is_long = not has_room or self._files[-1][2] > self._limit_bytes / 2
        now = time.monotonic()
        if is_long and now - self._asked >= _ASK_S:
            self._asked = now
            self._on_long()
        return has_room

    def close(self) -> None:
        """Write no more. What was not synced is not acknowledged either."""
        with self._changed:
            self._changed.wait_for(lambda: not self._syncing)
            self.error = self.error or LogFailedError("the log is closed")
            self._closed = True
            for descriptor in {self._file, self._owner} - {-1}:
                os.close(descriptor)
            self._file = self._owner = -1
            self._changed.notify_all()

    def _append(self, parts: Sequence[Buffer]) -> None:
        if self.error:
            raise self.error
        size = sum(map(len, parts))
        try:
            _write(self._file, parts)
        except OSError as error:
            with self._changed:
                raise self._failed(error) from error
        version, path, before = self._files[-1]
        self._files[-1] = (version, path, before + size)
        self.written += size

    def _sync_file(self) -> None:
        """Sync what is written now; others may write and wait meanwhile. Sets `error`."""
        end, self._syncing = self.written, True
        self.num_syncs += 1
        self._changed.release()
        failure: OSError | None = None
        try:
            os.fdatasync(self._file)
        except OSError as error:
            failure = error
        finally:
            self._changed.acquire()
            self._syncing = False
        if failure:
            # The kernel may have dropped the pages: a second sync would succeed, and mean nothing.
            self._failed(failure)
        else:
            self.durable = end
        self._changed.notify_all()

    def _failed(self, error: OSError) -> LogFailedError:
        if self.error is None:
            self.error = LogFailedError(
                f"{self._files[-1][1] if self._files else self._folder}: the log of pushes cannot "
                f"be written ({error}). Nothing more is acknowledged, what was acknowledged is "
                "safe: free or mend the disk, then start the same command again"
            )
            self._on_failure()
        return self.error

    def _start_file(self, version: int, rows: Any) -> None:
        path = self._folder / file_name(self._epoch, version)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        _write(self._file, (encode_head(version, self._epoch, rows),))
        os.fsync(self._file)
        sync(self._folder)
        self._files.append((version, path, 0))

    def _become_owner(self) -> None:
        if (newest := self._owner_epoch()) > self._epoch:
            raise FencedShardError(
                f"epoch {self._epoch} wants the log in {self._folder}, epoch {newest} owns it"
            )
        os.pwrite(self._owner, self._epoch.to_bytes(_OWNER_BYTES, "little"), 0)
        os.fsync(self._owner)

    def _check_owner(self) -> None:
        """A successor on another host cannot tell us otherwise; what it has read, it has read."""
        if not self._closed and (owner := self._owner_epoch()) != self._epoch:
            raise FencedShardError(f"epoch {self._epoch} was replaced by epoch {owner}")

    def _owner_epoch(self) -> int:
        return int.from_bytes(os.pread(self._owner, _OWNER_BYTES, 0), "little")


def _write(descriptor: int, parts: Sequence[Buffer]) -> None:
    """All of it, in as few calls as the system allows."""
    rest = [memoryview(part) for part in parts]
    while rest:
        count = os.writev(descriptor, rest)
        while rest and count >= len(rest[0]):
            count -= len(rest.pop(0))
        if rest:
            rest[0] = rest[0][count:]
