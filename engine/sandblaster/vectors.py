"""Named vectors of one shard, in files that outlive its process, and the requests on them.

Each vector's slice is a memory file of its own beside the shard's state. Requests of a coordinator
come in order; what a dead owner had begun is carried out again from its start, which gives the
same vectors because batches are replayable. The number of the newest request that was carried out
lies in a file too, so that one that arrives late, after newer ones, changes nothing.
"""

import mmap
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from engine import checkpoint, memory
from engine.batch.kernels import carry_out, check_known
from engine.batch.vector import reads, writes
from engine.batch.wire import from_wire
from engine.endpoint import Place
from engine.frames import Message, ProtocolError
from engine.segment import NUM_SLOTS, Segment

#: The parameters that Downpour works on, under the name by which commands know them.
PARAMETERS = "values"
_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
_SLOT = re.compile(r"(?P<segment>replica-\d{4}-\d{4})\.gradient-(?P<slot>\d)")
_MARK = np.dtype([("epoch", "i8"), ("sequence", "i8")])


class StaleCoordinatorError(ConnectionError):
    """A newer coordinator drives this shard: what the older one asks must not be done."""


class ShardVectors:
    """Carries out requests on this shard's slices of all named vectors."""

    def __init__(self, folder: Path, index: int, place: Place, values: Tensor) -> None:
        """Take over what a dead owner of the same folder left.

        Args:
            folder: of memory files.
            values: the shard's parameters, known to commands as "values".
        """
        self._vectors = _Files(folder, index, place, values)
        mark = _mapped(folder / f"shard-{index:02d}.requests", _MARK.itemsize)
        self._mark: Any = np.frombuffer(mark, _MARK, count=1)
        self._index = index
        self._kept: dict[str, dict[str, str]] = {}  # unchanged since it was written to disk

    def fetch(self, name: str, out: Tensor) -> None:
        """Copy this shard's slice of a vector into `out`.

        Raises:
            ProtocolError: there is no such vector.
        """
        if name not in self._vectors:
            raise ProtocolError(f"no vector {name!r} on this shard")
        out.copy_(self._vectors[name])

    def stage(self, name: str, grad: Tensor) -> None:
        """Keep the gradient slot of a replica whose memory this host does not share."""
        if not _SLOT.fullmatch(name):
            raise ProtocolError(f"{name!r} is no gradient slot of a replica")
        self._vectors.create(name).copy_(grad)

    def answer(self, request: Message) -> Message:
        """Carry out one request of the coordinator.

        Raises:
            StaleCoordinatorError: a newer coordinator has been heard.
            KeyError: a vector that is read does not exist; nothing is changed.
        """
        epoch, sequence = map(int, request["request"])
        newest = (int(self._mark["epoch"][0]), int(self._mark["sequence"][0]))
        if epoch < newest[0]:
            raise StaleCoordinatorError(f"coordinator {epoch} was replaced by {newest[0]}")
        if (epoch, sequence) < newest:
            return {"op": "answered", "request": request["request"], "late": True}
        answer = self._carry_out(request)
        # The epoch goes first: killed between the two, the successor repeats what is newest.
        if epoch > newest[0]:
            self._mark["sequence"] = 0
            self._mark["epoch"] = epoch
        self._mark["sequence"] = sequence
        return {"op": "answered", "request": request["request"], **answer}

    def keep(self, folder: Path, names: list[str]) -> Message:
        """Write to disk what has changed; return where each vector lies, and its digest.

        In whatever thread, but one at a time; nobody may write to these vectors meanwhile.
        """
        names = [name for name in names if name in self._vectors]
        changed = {name: self._vectors[name] for name in names if name not in self._kept}
        try:
            digests = checkpoint.write_shard(folder, self._index, changed) if changed else {}
        except OSError as error:
            return {"failed": str(error)}
        for name, digest in digests.items():
            self._kept[name] = {"folder": folder.name, "sha256": digest}
        return {"kept": {name: self._kept[name] for name in names}}

    def _carry_out(self, request: Message) -> Message:
        match request["op"]:
            case "commands":
                return {"scalars": self._run(request["batch"])}
            case "restore":
                self._restore(Path(request["folder"]), request["kept"][self._index])
                return {}
            case "forget":
                self._vectors.clear()
                self._kept.clear()
                return {}
            case op:
                raise ValueError(f"unknown request {op!r}")

    def _run(self, batch: list[Any]) -> list[float]:
        commands = [from_wire(value) for value in batch]
        for name in {name for command in commands for name in reads(command)}:
            self._vectors.find(name)
        check_known(commands, self._vectors)
        share: list[float] = []
        for command in commands:
            if target := writes(command):
                self._vectors.create(target)
                self._kept.pop(target, None)
            share += carry_out(command, self._vectors)
        return share

    def _restore(self, parent: Path, kept: dict[str, dict[str, str]]) -> None:
        for folder in {entry["folder"] for entry in kept.values()}:
            digests = {n: e["sha256"] for n, e in kept.items() if e["folder"] == folder}
            vectors = checkpoint.read_vectors(
                parent / folder / checkpoint.shard_file_name(self._index), digests
            )
            for name, vector in vectors.items():
                self._vectors.create(name).copy_(vector)
        self._kept = dict(kept)


class _Files(MutableMapping[str, Tensor]):
    """The vectors that are mapped, by name."""

    def __init__(self, folder: Path, index: int, place: Place, values: Tensor) -> None:
        self._folder = folder
        self._prefix = f"shard-{index:02d}.vector."
        self._place = place
        self._own = {PARAMETERS: values}
        self._segments: dict[str, Segment] = {}
        for path in folder.glob(f"{self._prefix}*"):
            if not path.name.endswith(".new"):  # left by a process that died while making it
                self.create(path.name.removeprefix(self._prefix))

    def create(self, name: str) -> Tensor:
        """The vector of that name, zeros if it did not exist."""
        if name not in self._own:
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a vector: want {_NAME.pattern}")
            place = self._place
            path = self._folder / (self._prefix + name)
            mapped = _mapped(path, place.count * place.dtype.itemsize)
            self._own[name] = torch.frombuffer(mapped, dtype=place.dtype, count=place.count)
        return self._own[name]

    def find(self, name: str) -> None:
        """Map the memory of a replica of this host, if `name` is one of its gradient slots."""
        slot = _SLOT.fullmatch(name)
        if slot is None or name in self:
            return
        path = self._folder / slot["segment"]
        if path.exists():
            gone = [name for name in self._segments if not (self._folder / name).exists()]
            for name in gone:  # of lives whose sums have all been added
                del self._segments[name]
            place = self._place
            self._segments[slot["segment"]] = Segment(path, place.size, place.dtype, new=False)

    def __getitem__(self, name: str) -> Tensor:
        if name in self._own:
            return self._own[name]
        if (slot := _SLOT.fullmatch(name)) and slot["segment"] in self._segments:
            whole = self._segments[slot["segment"]].gradients[int(slot["slot"])]
            return whole[self._place.first : self._place.first + self._place.count]
        raise KeyError(name)

    def __setitem__(self, name: str, vector: Tensor) -> None:
        self.create(name).copy_(vector)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"vector {name!r}: vectors are forgotten all at once")

    def clear(self) -> None:
        """Forget all vectors but the parameters, and free their memory."""
        for name in self._own.keys() - {PARAMETERS}:
            memory.remove(self._folder / (self._prefix + name))
            del self._own[name]
        self._segments.clear()

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        for segment in self._segments:
            yield from (f"{segment}.gradient-{slot}" for slot in range(NUM_SLOTS))

    def __len__(self) -> int:
        return len(self._own) + NUM_SLOTS * len(self._segments)


def _mapped(path: Path, num_bytes: int) -> mmap.mmap:
    opener = memory.open_existing if path.exists() else memory.create
    return opener(path, num_bytes)
