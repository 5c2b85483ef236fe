"""All roles of a Sandblaster run in one thread, in an order drawn from a seed, with faults.

Coordinator, vectors and arithmetic are those of a real run, and so are the memory files; sockets,
threads and processes are not. A killed shard loses what its process knew and keeps its files.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.batch.vector import Command
from engine.config import ClusterConfig
from engine.endpoint import Place
from engine.instructions import Instruction, Record, Send
from engine.problem import Problem
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.coordinator import Coordinator
from engine.sandblaster.inprocess_roles import LocalReplica, LocalShard
from engine.sandblaster.plan import planned_portions
from engine.sandblaster.vectors import ShardVectors

#: Events after which a run is given up: it hangs.
MAX_EVENTS = 100_000


@dataclass(frozen=True, kw_only=True)
class Faults:
    """Probability of each fault before every event."""

    kill_replica: float = 0.0
    freeze_replica: float = 0.0  # it works on for a while after it has been given up
    kill_shard: float = 0.0
    kill_shard_inside: float = 0.0  # in the middle of the next batch of commands


class InProcess:
    """The operations of `engine.sandblaster.driver.Driver`, on roles of this thread."""

    def __init__(
        self,
        problem: Problem,
        config: SandblasterConfig,
        cluster: ClusterConfig,
        folder: Path,
        *,
        seed: int,
        faults: Faults | None = None,
        epoch: int = 1,
    ) -> None:
        """Start all roles.

        Args:
            folder: for the memory files; the vectors there, if any, are taken over.
        """
        self.faults = faults or Faults()
        self.happened: Counter[str] = Counter()
        self.rows: list[dict[str, Any]] = []
        self._problem = problem
        self._config = config
        self._folder = folder
        self._random = random.Random(seed)
        self._slices = problem.layout.slices(cluster.num_shards)
        self._values = [problem.initial()[part].clone() for part in self._slices]
        self._next_peer = 1
        self._now = 0.0  # every step takes a second
        self._shards: dict[int, LocalShard] = {}
        self._replicas: dict[int, LocalReplica] = {}
        self._zombies: list[LocalReplica] = []
        portions = planned_portions(problem.unit_sizes, config)
        self._coordinator = Coordinator(portions, config, cluster, checkpoint="", epoch=epoch)
        for index in range(cluster.num_shards):
            self._start_shard(index)
        for index in range(cluster.num_replicas):
            self._start_replica(index)

    def run(self, commands: Sequence[Command]) -> tuple[float, ...]:
        """The scalars of a batch of commands."""
        answer: tuple[float, ...] = self._await(self._coordinator.run(commands))
        return answer

    def ask(self, op: str, **fields: Any) -> list[Mapping[str, Any]]:
        """Every shard's answer to some other request."""
        answer: list[Mapping[str, Any]] = self._await(self._coordinator.ask(op, **fields))
        return answer

    def evaluate(self, point: str, grad: str | None, samples: tuple[int, int] | None) -> float:
        """The mean loss at `point`; its gradient is left in `grad`."""
        answer: float = self._await(self._coordinator.evaluate(point, grad, samples, self._now))
        return answer

    def vector(self, name: str) -> Tensor:
        """A whole vector, shape (P,)."""
        whole = torch.empty(self._slices[-1].stop, dtype=self._problem.layout.dtype)
        for shard in self._shards.values():
            shard.vectors.fetch(name, whole[self._slices[shard.index]])
        return whole

    def _await(self, instructions: Sequence[Instruction]) -> Any:
        self._carry_out(instructions)
        for _ in range(MAX_EVENTS):
            if self._coordinator.answer is not None:
                return self._coordinator.answer
            self._fail_something()
            self._step()
        raise RuntimeError(f"no answer after {MAX_EVENTS} events: {self.happened}")

    def _carry_out(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(peer, message) if peer in self._shards:
                    self._shards[peer].inbox.append(message)
                case Send(peer, message) if peer in self._replicas:
                    self._replicas[peer].inbox.append(message)
                case Record(event, values):
                    self.rows.append({"event": event, **values})

    def _step(self) -> None:
        """One event somewhere: a message arrives, or a replica computes one work."""
        choices: list[tuple[float, Callable[[], None]]] = []
        for shard in self._shards.values():
            choices += [(1.0, partial(self._serve, shard))] if shard.inbox else []
            choices += [(1.0, partial(self._hear, shard))] if shard.outbox else []
        for replica in (*self._replicas.values(), *self._zombies):
            choices += [(1.0, replica.hear)] if replica.inbox else []
            choices += [(1.0, partial(self._hear, replica))] if replica.outbox else []
            choices += [(replica.speed, replica.compute)] if replica.ready else []
        if not choices:
            raise RuntimeError(f"nothing can happen any more: {self.happened}")
        weights = [weight for weight, _ in choices]
        _, happen = self._random.choices(choices, weights)[0]
        self._now += 1.0
        happen()

    def _hear(self, role: LocalShard | LocalReplica) -> None:
        self._carry_out(self._coordinator.hear(role.peer, role.outbox.popleft(), self._now))

    def _start_shard(self, index: int) -> None:
        part = self._slices[index]
        size, dtype = self._slices[-1].stop, self._problem.layout.dtype
        place = Place(part.start, part.stop - part.start, size, dtype)
        vectors = ShardVectors(self._folder, index, place, self._values[index])
        shard = LocalShard(self._take_peer(), index, vectors)
        self._shards[shard.peer] = shard

    def _serve(self, shard: LocalShard) -> None:
        request = shard.next_request()
        if request is None:
            return
        if self._happens("kill_shard_inside"):
            num_commands = len(request.get("batch", ()))
            shard.serve_part(request, self._random.randint(1, max(1, num_commands)))
            self._kill_shard(shard)
        else:
            shard.serve(request)

    def _kill_shard(self, shard: LocalShard) -> None:
        del self._shards[shard.peer]
        self._carry_out(self._coordinator.lose(shard.peer, "killed", self._now))
        self._start_shard(shard.index)

    def _start_replica(self, index: int) -> None:
        replica = LocalReplica(
            self._take_peer(),
            index,
            self._problem,
            self._config,
            self._folder,
            self.vector,
            speed=self._random.choice((0.1, 1.0, 1.0)),
        )
        self._replicas[replica.peer] = replica

    def _lose_replica(self, freeze: bool) -> None:
        replica = self._random.choice(list(self._replicas.values()))
        del self._replicas[replica.peer]
        if freeze and replica.welcomed:
            self._zombies.append(replica)
        self._carry_out(self._coordinator.lose(replica.peer, "killed", self._now))
        self._start_replica(replica.index)

    def _fail_something(self) -> None:
        if self._happens("kill_replica"):
            self._lose_replica(freeze=False)
        if self._happens("freeze_replica"):
            self._lose_replica(freeze=True)
        if self._happens("kill_shard"):
            self._kill_shard(self._random.choice(list(self._shards.values())))

    def _happens(self, fault: str) -> bool:
        probability: float = getattr(self.faults, fault)
        happens = self._random.random() < probability
        self.happened[fault] += happens
        return happens

    def _take_peer(self) -> int:
        self._next_peer += 1
        return self._next_peer
