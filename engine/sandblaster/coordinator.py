"""The coordinator's decisions: it gives portions to replicas and commands to shards. Pure.

Messages and the clock come in as arguments, instructions go out. One operation is under way at a
time, beside which the shards may be writing to disk; `answer` holds its result once it is done.
No vector ever comes here.

    replica: work → sum → released, and validate → measured
    shard:   requests and their answers, in order
"""

from collections.abc import Sequence
from typing import Any

from engine.batch.kernels import merge
from engine.batch.vector import Command
from engine.batch.wire import to_wire
from engine.config import ClusterConfig
from engine.frames import Message
from engine.instructions import Instruction, Record, Send
from engine.roster import Roster
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.evaluator import Evaluator
from engine.sandblaster.keeping import Keeping
from engine.sandblaster.portions import Portion
from engine.sandblaster.reception import Reception
from engine.sandblaster.requests import Request, Requests
from engine.sandblaster.validation import Validation
from engine.seats import Seats


class Coordinator:
    """Drives the replicas and shards of one Sandblaster run."""

    def __init__(
        self,
        portions: Sequence[Portion],
        config: SandblasterConfig,
        cluster: ClusterConfig,
        *,
        checkpoint: str,
        epoch: int,
        seats: Seats | None = None,
    ) -> None:
        """Start with the shards that are seated.

        Args:
            portions: of the whole data.
            checkpoint: what shards restore when their memory is new.
            epoch: of this coordinator, above that of any that drove these shards before.
            seats: of the run's phase before; None: nobody is connected yet.
        """
        self._cluster = cluster
        self._roster = Roster(cluster, seats)
        self._reception = Reception(self._roster, checkpoint)
        self._requests = Requests(cluster.num_shards, epoch)
        self._request: Request | None = None  # that the operation waits for
        self._commands: Sequence[Command] = ()
        self._evaluator = Evaluator(portions, config, self._roster)
        self._validation = Validation(self._roster)
        self._keeping = Keeping(cluster.num_shards, epoch)
        self._stopped = False
        self.answer: Any = None
        self.kept: list[Message] | None = None  # every shard's answer to the last `keep`

    @property
    def segments(self) -> frozenset[str]:
        """Names of the memory files of the replicas' present lives."""
        return self._reception.segments

    # Operations

    def run(self, commands: Sequence[Command]) -> list[Instruction]:
        """Have the shards carry out a batch; the answer is the tuple of its scalars."""
        self._begin()
        self._commands = commands
        return self._ask_commands(commands)

    def ask(self, op: str, **fields: Any) -> list[Instruction]:
        """Ask every shard for something else; the answer is the list of theirs."""
        self._begin()
        return self._ask(op, **fields)

    def evaluate(
        self, point: str, grad: str | None, samples: tuple[int, int] | None, now: float
    ) -> list[Instruction]:
        """Compute the mean loss at `point`, the answer, and leave the gradient in `grad`."""
        self._begin()
        self._evaluator.begin(point, grad, samples, now)
        return self._go_on(now)

    def keep(self, folder: str, names: Sequence[str]) -> list[Instruction]:
        """Have the shards write vectors to disk, beside other operations; see `kept`."""
        self.kept = None
        message = self._keeping.begin(folder, names)
        return [Send(s.peer, message) for s in self._roster.shards if s.address and s.peer]

    def validate(self, point: str) -> list[Instruction]:
        """Have some replica measure `point` on held-out data; the answer is its measures."""
        self._begin()
        return self._validation.begin(point)

    def stop(self) -> list[Instruction]:
        """Tell the replicas that this phase is over; the shards may serve another one."""
        self._stopped = True
        replicas = [seat.peer for seat in self._roster.replicas if seat.peer is not None]
        return [Send(peer, {"op": "stop"}) for peer in replicas]

    # Events

    def hear(self, peer: int, message: Message, now: float) -> list[Instruction]:
        """A message from a connected peer."""
        if message["op"] == "hello":
            return self._greet(peer, message, now)
        place = self._roster.place_of(peer)
        if place is None:  # dropped since; what it says no longer counts
            return []
        role, index = place
        self._roster.seat(role, index).heard = now
        if role == "shard":
            return self._hear_shard(index, message, now)
        return self._hear_replica(index, message, now)

    def lose(self, peer: int, reason: str, now: float) -> list[Instruction]:
        """A connection ended."""
        place = self._roster.place_of(peer)
        if place is None:
            return []
        role, index = place
        self._roster.leave(peer)
        if self._stopped:
            return []
        self._roster.count_restart(role, index, reason)
        if role == "shard":
            seat = self._roster.shards[index]
            values = {"shard": index, "epoch": seat.epoch, "pid": seat.pid, "reason": reason}
            return [Record("shard_lost", values)]
        return self._lose_replica(index, reason, now)

    def tick(self, now: float) -> list[Instruction]:
        """Time has passed: who is silent?

        Raises:
            RunFailedError: a shard or all replicas have been away for too long.
        """
        self._roster.check_absent(now)
        instructions: list[Instruction] = []
        for peer, drop, reason in self._roster.silent(now):
            instructions += [drop, *self.lose(peer, reason, now)]
        return instructions + self._evaluator.give_work(now)  # somebody may be late by now

    # Peers

    def _greet(self, peer: int, hello: Message, now: float) -> list[Instruction]:
        role, index = str(hello["role"]), int(hello["index"])
        before = self._roster.seat(role, index).peer
        lost = [] if before is None else self.lose(before, "a successor connected", now)
        self._roster.sit(peer, hello, now)
        if role == "replica":
            return [*lost, *self._welcome(now)]
        return [*lost, *self._reception.assign(index)]

    def _welcome(self, now: float) -> list[Instruction]:
        """Welcome the replicas that wait, and give them work."""
        if self._stopped or not self._roster.all_shards_serve:
            return []
        return [*self._roster.welcome(), *self._validation.go_on(), *self._go_on(now)]

    def _hear_shard(self, index: int, message: Message, now: float) -> list[Instruction]:
        if message["op"] == "serving":
            return self._serving(index, message, now)
        if message["op"] == "kept":
            self.kept = self._keeping.hear(index, message) or self.kept
        if "request" not in message:  # or a heartbeat
            return []
        request = self._requests.answer(index, message)
        return self._answered(request, now) if request else []

    def _serving(self, index: int, message: Message, now: float) -> list[Instruction]:
        instructions = self._reception.serving(index, message)
        peer = self._roster.shards[index].peer
        assert peer is not None
        missed = (*self._requests.unanswered(index), *self._keeping.unanswered(index))
        return [
            *instructions,
            *(Send(peer, request) for request in missed),
            *self._welcome(now),
        ]

    def _hear_replica(self, index: int, message: Message, now: float) -> list[Instruction]:
        if message["op"] == "sum":
            return [*self._evaluator.take_sum(index, message, now), *self._go_on(now)]
        if message["op"] == "measured":
            metrics = self._validation.hear(index, message)
            self.answer = self.answer if metrics is None else metrics
        return []

    def _lose_replica(self, index: int, reason: str, now: float) -> list[Instruction]:
        seat = self._roster.replicas[index]
        if not seat.welcomed:
            return []
        values = {"replica": index, "incarnation": seat.incarnation, "pid": seat.pid}
        lost = Record("replica_lost", values | {"reason": reason})
        settled = self._evaluator.lose(index)
        self._validation.lose(index)
        return [lost, *settled, *self._validation.go_on(), *self._go_on(now)]

    # What the operation under way needs next

    def _begin(self) -> None:
        under_way = (self._request, self._evaluator.busy, self._validation.busy)
        assert not any(under_way), "one at a time"
        self.answer = None

    def _ask_commands(self, commands: Sequence[Command]) -> list[Instruction]:
        return self._ask("commands", batch=[to_wire(command) for command in commands])

    def _ask(self, op: str, **fields: Any) -> list[Instruction]:
        self._request = self._requests.ask(op, **fields)
        shards = self._roster.shards
        return [Send(s.peer, self._request.message) for s in shards if s.address and s.peer]

    def _answered(self, request: Request, now: float) -> list[Instruction]:
        """All shards have answered a request."""
        assert request is self._request
        self._request = None
        answers = [request.answers[k] for k in range(self._cluster.num_shards)]
        if self._evaluator.busy:
            return [*self._evaluator.commands_done(), *self._go_on(now)]
        if request.message["op"] == "commands":
            self.answer = merge(self._commands, [answer["scalars"] for answer in answers])
        else:
            self.answer = answers
        return []

    def _go_on(self, now: float) -> list[Instruction]:
        """Give out work, have sums added, and finish the evaluation when nothing is missing."""
        instructions = self._evaluator.give_work(now)
        if commands := self._evaluator.next_commands():
            instructions += self._ask_commands(commands)
        if event := self._evaluator.finish(now):
            self.answer = event.values["loss"]
            instructions.append(event)
        return instructions
