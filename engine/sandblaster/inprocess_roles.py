"""Replica and shard of a run in one process: each takes messages in and puts answers out."""

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from engine.frames import Message
from engine.problem import Problem
from engine.run_spec import segment_name
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.vectors import ShardVectors
from engine.sandblaster.work import WorkOrder, compute, pieces
from engine.segment import NUM_SLOTS, Segment

_PROCESS: Final = {"pid": 0, "worker": ""}


class LocalShard:
    """One life of a shard; its vectors lie in files that the next life takes over."""

    def __init__(self, peer: int, index: int, vectors: ShardVectors) -> None:
        self.peer, self.index, self.vectors = peer, index, vectors
        self.inbox: deque[Message] = deque()
        self.outbox: deque[Message] = deque()
        self.outbox.append({"op": "hello", "role": "shard", "index": index} | _PROCESS)

    def next_request(self) -> Message | None:
        """The next message, if it asks for something; being told its epoch it answers at once."""
        message = self.inbox.popleft()
        if message["op"] != "assign":
            return message
        serving = {"op": "serving", "host": "", "port": 0, "version": 0}
        self.outbox.append(serving | {"restored_from": "memory"})
        return None

    def serve(self, request: Message) -> None:
        """Carry a request out."""
        self.outbox.append(self.vectors.answer(request))

    def serve_part(self, request: Message, num_commands: int) -> None:
        """Carry out the first commands of a batch, and do not answer."""
        if request["op"] == "commands":
            self.vectors.answer(request | {"batch": request["batch"][:num_commands]})


class LocalReplica:
    """One life of a replica."""

    def __init__(
        self,
        peer: int,
        index: int,
        problem: Problem,
        config: SandblasterConfig,
        folder: Path,
        fetch: Callable[[str], Tensor],
        speed: float,
    ) -> None:
        """Begin a life.

        Args:
            folder: for its memory file.
            fetch: a named vector, whole.
            speed: how readily it computes, beside the other things that may happen: what it
                answers is that a portion took 1 / speed seconds, which is a bad estimate.
        """
        self.peer, self.index, self.speed = peer, index, speed
        self._problem, self._config, self._folder, self._fetch = problem, config, folder, fetch
        self.inbox: deque[Message] = deque()
        self.outbox: deque[Message] = deque()
        self._orders: deque[WorkOrder] = deque()
        self._segment: Segment | None = None
        self._free = list(range(NUM_SLOTS))
        self._newest = self._fetched = 0  # evaluations
        self.outbox.append({"op": "hello", "role": "replica", "index": index} | _PROCESS)

    @property
    def welcomed(self) -> bool:
        """It has a memory file, and may be given work."""
        return self._segment is not None

    @property
    def ready(self) -> bool:
        """It has something to do and somewhere to put the result."""
        return bool(self._orders) and (bool(self._free) or not self._orders[0].gradient)

    def hear(self) -> None:
        """Take in the next message."""
        message = self.inbox.popleft()
        match message["op"]:
            case "welcome":
                path = self._folder / segment_name(self.index, message["incarnation"])
                layout = self._problem.layout
                self._segment = Segment(path, layout.size, layout.dtype, new=True)
            case "work":
                self._orders.append(WorkOrder.of(message))
                self._newest = message["evaluation"]
            case "released":
                self._free.append(message["slot"])

    def compute(self) -> None:
        """Do the next work, unless its evaluation is over."""
        order = self._orders.popleft()
        if order.evaluation < self._newest:
            return
        assert self._segment is not None
        parameters = self._segment.parameters[0]
        if self._fetched != order.evaluation:
            parameters.copy_(self._fetch(order.point))
            self._fetched = order.evaluation
        slot = self._free.pop() if order.gradient else None
        accrued = self._segment.gradients[slot or 0]
        found = pieces(self._problem, order, self._config.minibatch_size, self._config.seed)
        spare = torch.empty_like(accrued)
        losses = compute(self._problem, parameters, order, found, accrued, spare)
        message = {"op": "sum", "work": order.work, "evaluation": order.evaluation}
        took_s = len(order.portions) / self.speed
        message |= {"slot": slot, "losses": losses, "took_s": took_s}
        message |= {"computing_s": took_s, "waiting_s": 0.0}
        self.outbox.append(message)
