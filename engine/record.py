"""What a run with `algorithm.record` writes down, so that `engine.replay` can repeat it.

    record/000000/shard-00.jsonl            ["push", version, replica, incarnation, sequence, scale]
    record/000000/replica-0001-0002.jsonl   ["lease", Lease, scale], ["take"], ["idle"],
                                            ["fetch", [version of each shard]]

The folder is named after the checkpoint that the attempt began with. Each row is one write to an
unbuffered file, so that it survives the death of its process.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.downpour import Answer, Idle
from engine.link import Refused
from engine.loader import LeaseReply
from engine.push import Applied, Push
from engine.replica import Server


class Recorder:
    """Appends rows to one file; safe for threads, as each row is one write."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def write(self, *row: Any) -> None:
        """Append one row."""
        os.write(self._descriptor, (json.dumps(row) + "\n").encode())

    def close(self) -> None:
        """Call it when nobody writes any more."""
        os.close(self._descriptor)

    def push(self, version: int, push: Push) -> None:
        """Note that `push` becomes update number `version`; written before it is begun.

        A shard that dies in between has its successor write another row for the same version,
        perhaps of another push: the last one holds.
        """
        self.write("push", version, push.replica, push.incarnation, push.sequence, push.scale)

    def asking(self, ask: Callable[[], LeaseReply]) -> Callable[[], LeaseReply]:
        """`ask`, with its leases noted."""

        def noted() -> LeaseReply:
            reply = ask()
            if reply.lease is not None:
                self.write("lease", reply.lease, reply.scale)
            return reply

        return noted

    def taking(self, minibatches: Iterator[Answer]) -> Iterator[Answer]:
        """`minibatches`, with a note of each."""
        for item in minibatches:
            self.write("idle" if isinstance(item, Idle) else "take")
            yield item


class RecordedServer:
    """The shards as a replica sees them, with the versions of every fetch noted."""

    def __init__(self, server: Server, recorder: Recorder) -> None:
        self._server = server
        self._recorder = recorder

    def fetch(self, buffer: int) -> list[int]:
        versions = self._server.fetch(buffer)
        self._recorder.write("fetch", versions)
        return versions

    def push(self, slot: int, pushes: Sequence[Push]) -> list[Applied | Refused]:
        return self._server.push(slot, pushes)

    def exchange(
        self, slot: int, pushes: Sequence[Push], buffer: int
    ) -> tuple[list[Applied | Refused], list[int]]:
        answers, versions = self._server.exchange(slot, pushes, buffer)
        self._recorder.write("fetch", versions)
        return answers, versions

    def settle(self, answers: Sequence[Applied | Refused]) -> list[Applied | Refused]:
        return self._server.settle(answers)
