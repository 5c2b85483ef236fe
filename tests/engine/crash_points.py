"""A disk that dies with its machine at the n-th thing done to it, and what it holds afterwards.

Every write, sync, rename and removal of the engine's log and checkpoints is a point. What was not
synced is lost, in whole or in part; a name whose folder was not synced is lost as well.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.engine.killed import Killed


class DoomedDisk:
    """Stands in for `os` in the modules that write, and counts down to its end."""

    def __init__(self, monkeypatch: Any, points: int) -> None:
        self._left = points
        self._paths: dict[int, Path] = {}
        self.synced: dict[Path, int] = {}  # bytes of each file written here that are safe
        self.unnamed: set[Path] = set()  # new, and their folder was not synced
        for module in ("engine.push_log", "engine.checkpoint"):
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

    def writev(self, descriptor: int, parts: list[memoryview]) -> int:
        if self._left == 0:  # dies in the middle of it
            os.write(descriptor, parts[0][: len(parts[0]) // 2])
        self._point()
        return os.writev(descriptor, parts)

    def pwrite(self, descriptor: int, content: bytes, offset: int) -> int:
        self._point()
        return os.pwrite(descriptor, content, offset)

    def fsync(self, descriptor: int) -> None:
        self._point()
        path = self._paths[descriptor]
        if path.is_dir():
            self.unnamed = {new for new in self.unnamed if new.parent != path}
        elif path in self.synced:
            self.synced[path] = path.stat().st_size

    fdatasync = fsync

    def lose_power(self, rng: random.Random) -> None:
        """Leave on the real disk what a machine finds there that has lost its power."""
        for path in self.unnamed:
            if path.exists() and rng.random() < 0.5:
                os.unlink(path)
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
