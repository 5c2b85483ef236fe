"""A disk that dies with its machine at the n-th thing done to it, and what it holds afterwards.

Every write, sync, rename and removal of the engine's log and checkpoints is a point, and whatever
takes room or gives it back. Of the blocks that were not synced some are lost; a name whose folder
was not synced is lost as well.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.block_file import BLOCK
from tests.engine.killed import Killed


class DoomedDisk:
    """Stands in for `os` in the modules that write, and counts down to its end."""

    def __init__(self, monkeypatch: Any, points: int) -> None:
        self._left = points
        self._paths: dict[int, Path] = {}
        self.synced: dict[Path, int] = {}  # bytes of each file written here that are safe
        self.unnamed: set[Path] = set()  # new, and their folder was not synced
        self._unsynced: list[tuple[Path, int]] = []  # blocks that were written
        for module in ("engine.block_file", "engine.push_log", "engine.checkpoint"):
            monkeypatch.setattr(f"{module}.os", self)
        rename, unlink, rmtree = Path.rename, Path.unlink, shutil.rmtree
        monkeypatch.setattr(Path, "rename", self._counted(rename))
        monkeypatch.setattr(Path, "unlink", self._counted(unlink))
        monkeypatch.setattr(shutil, "rmtree", self._counted(rmtree))

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        self._point()
        new = not os.path.exists(path)
        descriptor = os.open(path, flags, mode)
        self._paths[descriptor] = Path(path)
        if flags & os.O_CREAT and new:
            self.unnamed.add(Path(path))
            self.synced[Path(path)] = 0
        return descriptor

    def pwritev(self, descriptor: int, parts: list[memoryview], offset: int) -> int:
        content = b"".join(parts)
        path, count = self._paths[descriptor], len(content) // BLOCK
        self._unsynced += [(path, offset + index * BLOCK) for index in range(count)]
        if self._left == 0:  # dies in the middle of it
            with path.open("r+b") as file:
                file.seek(offset)
                file.write(content[: len(content) // 2])
        self._point()
        return os.pwritev(descriptor, parts, offset)

    def pwrite(self, descriptor: int, content: bytes, offset: int) -> int:
        self._point()
        return os.pwrite(descriptor, content, offset)

    def posix_fallocate(self, descriptor: int, offset: int, count: int) -> None:
        self._point()
        os.posix_fallocate(descriptor, offset, count)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._point()
        os.ftruncate(descriptor, size)

    def fsync(self, descriptor: int) -> None:
        self._point()
        path = self._paths[descriptor]
        if path.is_dir():
            self.unnamed = {new for new in self.unnamed if new.parent != path}
        elif path in self.synced:
            self.synced[path] = path.stat().st_size
        self._unsynced = [(written, at) for written, at in self._unsynced if written != path]

    fdatasync = fsync

    def lose_power(self, rng: random.Random) -> None:
        """Leave on the real disk what a machine finds there that has lost its power."""
        for path in self.unnamed:
            if path.exists() and rng.random() < 0.5:
                os.unlink(path)
        for path, at in self._unsynced:
            if path.exists() and rng.random() < 0.5:
                with path.open("r+b") as file:
                    file.seek(at)
                    file.write(bytes(BLOCK))
        for path, safe in self.synced.items():
            if path.exists():
                size = path.stat().st_size
                safe = min(safe, size)
                os.truncate(path, rng.choice((safe, rng.randint(safe, size), size)))

    def _point(self) -> None:
        if self._left == 0:
            raise Killed
        self._left -= 1

    def _counted(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self._point()
            return act(*arguments, **named)

        return counted
