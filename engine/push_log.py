"""A shard's log of pushes on disk: what `durability=power` acknowledges outlives the machine.

A push takes its place in the log before it is begun, and is written beside its application: its
gradient must not change until it is durable. Whoever wants to acknowledge it waits for that; the
first to wait writes and syncs, outside the shard's lock, all that has a place by then, for all who
wait (group commit). What a process leaves applied and not written, its successor writes.

    log/shard-00/owner             the epoch that may acknowledge
    log/shard-00/<...>.log         see `engine.log_file`
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.block_file import BlockFile
from engine.checkpoint import sync
from engine.log_file import Fence, LogFile, Record, encode_head, file_name, scratch_blocks
from engine.push import FencedShardError, Push
from engine.state import NUM_INTENTS

#: While there is too much in the log, a checkpoint is asked for no more often than this.
_ASK_S = 1.0
_OWNER_BYTES = 8


class LogFailedError(Exception):
    """The log cannot be written: nothing may be acknowledged from here on."""


def ignore(*_: object) -> None:
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
        self._writing = self._closed = False
        self._file: BlockFile | None = None
        self._scratch = scratch_blocks()  # of whoever writes
        self._waiting: list[tuple[int, Record]] = []  # not written yet; where each begins
        #: (version, path, bytes) of each file; the last one is written to
        self._files: list[tuple[int, Path, int]] = []
        self.error: LogFailedError | None = None
        self.written = self.durable = 0  # bytes of records under this owner: placed, on the disk
        self._placed_version = self._durable_version = 0
        self._note: Callable[[int], None] = ignore
        self.num_syncs = 0
        folder.mkdir(parents=True, exist_ok=True)
        sync(folder.parent)
        self._owner = os.open(folder / "owner", os.O_RDWR | os.O_CREAT, 0o600)
        self._become_owner()

    def begin(
        self,
        version: int,
        rows: Any,
        earlier: Sequence[LogFile] = (),
        unlogged: Sequence[tuple[int, Push, Tensor]] = (),
        note: Callable[[int], None] = ignore,
    ) -> None:
        """Start writing, the shard being at `version` with the table `rows`.

        Args:
            earlier: the files that dead owners have left.
            unlogged: what the last of them had applied, but perhaps not written.
            note: told up to which version all is on the disk, before anybody acknowledges it.
        """
        self._note = note
        try:
            if unlogged:
                _complete(earlier[-1], [Record(*applied) for applied in unlogged])
                self._reach(version)
            for file in earlier:
                sync(file.path)
                self._files.append((file.version, file.path, file.path.stat().st_size))
            self._start_file(version, rows)
        except OSError as error:
            raise self._failed(error) from error

    def push(self, version: int, push: Push, grad: Tensor) -> None:
        """Take a place for the push that makes `version`, before it is applied.

        Raises:
            LogFailedError: there is no place.
        """
        if version - self._durable_version >= NUM_INTENTS:
            with self._changed:
                self._write_all()
        self._place(Record(version, push, grad))

    def fence(self, version: int, replica: int, incarnation: int) -> None:
        """Note that a life is refused from `version` on; LogFailedError as for a push."""
        self._place(Record(version, Fence(replica, incarnation), torch.empty(0)))

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
                if self._writing:
                    self._changed.wait()
                else:
                    self._write_waiting()
            self._check_owner()

    def rotate(self, version: int, rows: Any) -> None:
        """Go on in a new file, which begins with `version`: that of a checkpoint to be."""
        if version == self._files[-1][0]:
            return
        with self._changed:
            self._write_all()
            try:
                self._close_file()
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
            self._changed.wait_for(lambda: not self._writing)
            self.error = self.error or LogFailedError("the log is closed")
            self._closed = True
            self._close_file()
            if self._owner != -1:
                os.close(self._owner)
            self._owner = -1
            self._changed.notify_all()

    def _place(self, record: Record) -> None:
        with self._changed:
            if self.error:
                raise self.error
            assert self._file is not None
            size = record.num_bytes()
            try:
                self._waiting.append((self._file.reserve(size), record))
            except OSError as error:
                raise self._failed(error) from error
            version, path, before = self._files[-1]
            self._files[-1] = (version, path, before + size)
            self.written += size
            self._placed_version = record.version

    def _write_all(self) -> None:
        """All that has a place is on the disk then; LogFailedError if it is not."""
        self._changed.wait_for(lambda: not self._writing)
        if self.durable < self.written and not self.error:
            self._write_waiting()
        if self.error:
            raise self.error

    def _write_waiting(self) -> None:
        """Write and sync what has a place now; others may come meanwhile. Sets `error`."""
        assert self._file is not None
        records, self._waiting = self._waiting, []
        end, version, self._writing = self.written, self._placed_version, True
        self.num_syncs += 1
        self._changed.release()
        failure: Exception | None = None
        try:
            _write(self._file, records, self._scratch)
        except Exception as error:  # whatever it is: they are not on the disk
            failure = error
        finally:
            self._changed.acquire()
            self._writing = False
        if failure:
            # The kernel may have dropped the pages: a second sync would succeed, and mean nothing.
            self._failed(failure)
        else:
            self.durable = end
            self._reach(version)
        self._changed.notify_all()

    def _failed(self, error: Exception) -> LogFailedError:
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
        self._file = BlockFile(path)
        self._file.append(encode_head(version, self._epoch, rows))
        sync(self._folder)
        self._files.append((version, path, 0))
        self._placed_version = version
        self._reach(version)

    def _reach(self, version: int) -> None:
        self._durable_version = version
        self._note(version)

    def _close_file(self) -> None:
        if self._file:
            self._file.close()
        self._file = None

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


def _complete(last: LogFile, unlogged: Sequence[Record]) -> None:
    """Have the newest file hold these records, of which it may lack some."""
    file = BlockFile(last.path, last.end_of(unlogged[0].version - 1))
    try:
        places = [(file.reserve(record.num_bytes()), record) for record in unlogged]
        _write(file, places, scratch_blocks())
    finally:
        file.close()


def _write(file: BlockFile, records: Iterable[tuple[int, Record]], scratch: memoryview) -> None:
    """Write each where it has its place, and sync."""
    for offset, record in records:
        file.write(offset, record.encode(scratch))
    file.sync()
