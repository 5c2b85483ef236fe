"""The coordinator at work: an optimiser's program carried out on sockets, clock and files."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine import memory
from engine.batch.vector import Command
from engine.coordinator_server import CoordinatorServer, Heard
from engine.events import EventLog
from engine.frames import Message
from engine.instructions import Drop, Instruction, Record, Send
from engine.processes import end_process
from engine.run_spec import RunSpec
from engine.sandblaster.coordinator import Coordinator

_TICK_S = 0.25


class Driver:
    """Carries out one operation of the coordinator at a time, and waits for its answer."""

    def __init__(
        self,
        server: CoordinatorServer,
        run: RunSpec,
        coordinator: Coordinator,
        events: EventLog,
        check_roles: Callable[[], None],
    ) -> None:
        """Drive `coordinator` on `server`.

        Args:
            check_roles: called several times a second; raises when a role cannot go on.
        """
        self._server = server
        self._run = run
        self._coordinator = coordinator
        self._events = events
        self._check_roles = check_roles
        self._checked = 0.0
        self.num_round_trips = 0  # batches of commands; evaluations come on top
        self._replica_lost = False
        self._kept: Callable[[list[Message]], None] | None = None
        self._begin_keeping: Callable[[], None] = _nothing

    def run(self, commands: Sequence[Command]) -> tuple[float, ...]:
        """The scalars of a batch of commands."""
        self.num_round_trips += 1
        answer: tuple[float, ...] = self._await(self._coordinator.run(commands))
        return answer

    def ask(self, op: str, **fields: Any) -> list[Mapping[str, Any]]:
        """Every shard's answer to some other request."""
        answer: list[Mapping[str, Any]] = self._await(self._coordinator.ask(op, **fields))
        return answer

    def evaluate(self, point: str, grad: str | None, samples: tuple[int, int] | None) -> float:
        """The mean loss at `point`; its gradient is left in `grad`."""
        now = time.monotonic()
        self._carry_out(self._coordinator.evaluate(point, grad, samples, now))
        self._begin_keeping()  # the work is given out
        answer: float = self._await([])
        if self._replica_lost:
            self._forget_lost()
        return answer

    def keep(
        self, folder: str, names: Sequence[str], done: Callable[[list[Message]], None]
    ) -> None:
        """Have the shards write vectors to disk while replicas compute the next evaluation.

        Before it all wait for the shards, which then should do nothing else.

        Args:
            done: called in this thread with every shard's answer, at some later operation.
        """
        self.settle()

        def begin() -> None:
            self._begin_keeping, self._kept = _nothing, done
            self._carry_out(self._coordinator.keep(folder, names))

        self._begin_keeping = begin

    def settle(self) -> None:
        """Wait until what `keep` was told is written, and `done` was called."""
        self._begin_keeping()
        while self._kept:
            self._handle_events()

    def validate(self, point: str) -> Mapping[str, float]:
        """Measures on held-out data."""
        answer: Mapping[str, float] = self._await(self._coordinator.validate(point))
        return answer

    def stop(self) -> None:
        """Tell the replicas to end."""
        self._carry_out(self._coordinator.stop())

    def _await(self, instructions: Sequence[Instruction]) -> Any:
        self._carry_out(instructions)
        while self._coordinator.answer is None:
            self._handle_events()
        return self._coordinator.answer

    def _handle_events(self) -> None:
        """One event, and what is due besides."""
        self._handle_event()
        if self._kept and (answers := self._coordinator.kept):
            done, self._kept = self._kept, None
            done(answers)
        if time.monotonic() - self._checked > _TICK_S:
            self._carry_out(self._coordinator.tick(time.monotonic()))
            self._check_roles()
            self._checked = time.monotonic()

    def _handle_event(self) -> None:
        event = self._server.next_event(_TICK_S)
        if event is None:
            return
        now = time.monotonic()
        if isinstance(event, Heard):
            self._carry_out(self._coordinator.hear(event.peer, event.message, now))
        else:
            self._carry_out(self._coordinator.lose(event.peer, event.reason, now))

    def _carry_out(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Send(peer, message):
                    self._server.send(peer, message)
                case Record(event, values):
                    self._events.record(event, **values)
                    self._replica_lost |= event == "replica_lost"
                case Drop(peer, pid, _):
                    self._server.drop(peer)
                    end_process(pid)

    def _forget_lost(self) -> None:
        """Free the memory of lost lives of replicas: all sums that counted have been added."""
        alive = self._coordinator.segments
        for path in self._run.memory.glob("replica-*"):
            if path.name not in alive:
                memory.remove(path)
        self._replica_lost = False


def _nothing() -> None:
    """There is nothing to keep."""
