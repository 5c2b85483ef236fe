"""Runs one Downpour replica: compute, fetch and push each in a thread of its own.

The compute thread carries out the instructions of `engine.downpour`. Gradients accrue directly in
the slot that the shards read, and there are two slots: the compute thread fills one while the
push thread sends the other, so no gradient falls between sending and zeroing.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from torch import Tensor

from engine.accrual import Accrual
from engine.config import DownpourConfig
from engine.device import device_of
from engine.downpour import Answer, Compute, Fetch, Idle, StartPush, Take, downpour
from engine.draws import seed_draws
from engine.ledger import Progress
from engine.link import Refused
from engine.problem import Problem
from engine.push import Applied, HugePushError, NonFinitePushError, Push
from engine.segment import NUM_SLOTS

T = TypeVar("T")
#: Refusals that say that the replica computes nothing of use.
BAD = (NonFinitePushError.__name__, HugePushError.__name__)


class FencedReplicaError(Exception):
    """The shards refuse this incarnation: the coordinator gave its work to another one."""


class QuarantinedReplicaError(Exception):
    """So many gradients in a row were no numbers or too large that this replica is of no use."""


class Server(Protocol):
    """A replica's shards together; vectors lie in numbered shared buffers."""

    def fetch(self, buffer: int) -> list[int]: ...

    def push(self, slot: int, pushes: Sequence[Push]) -> list[Applied | Refused]: ...

    def exchange(
        self, slot: int, pushes: Sequence[Push], buffer: int
    ) -> tuple[list[Applied | Refused], list[int]]: ...

    def settle(self, answers: Sequence[Applied | Refused]) -> list[Applied | Refused]: ...


@dataclass
class Tally:
    """What happened since it was last taken."""

    loss_sum: float = 0.0  # sum over mini-batches of mean loss times samples
    samples: int = 0
    steps: int = 0
    waiting_s: float = 0.0  # compute thread waiting for data, parameters or a free slot
    staleness: Counter[tuple[int, int]] = field(default_factory=Counter)  # shard, updates -> pushes
    refused: Counter[str] = field(default_factory=Counter)  # message -> pushes


class Replica:
    """One life of one replica, from its first fetch to the answer to its last push."""

    def __init__(
        self,
        identity: tuple[int, int],
        problem: Problem,
        config: DownpourConfig,
        server: Server,
        vectors: tuple[Sequence[Tensor], Sequence[Tensor]],
        shards: Sequence[int],
        report: Callable[["Replica"], None],
    ) -> None:
        """Prepare a replica.

        Args:
            identity: (replica, incarnation).
            vectors: the gradient slots and the parameter buffers that `server` numbers.
            shards: those that `server` stands for, in its order.
            report: called by the compute thread after each step and when it is idle; calls
                `take` when it wants the figures.
        """
        self._identity = identity
        self._problem = problem
        self._config = config
        self._server = server
        self._gradients, self._parameters = vectors
        self._report = report
        self._shards = shards
        self._versions = [0] * len(shards)
        self._front = self._slot = self._sequence = 0
        self._pushes: list[Future[None] | None] = [None] * NUM_SLOTS
        #: What was exchanged last and is not durable yet; its slot is the one not in use.
        self._owed: tuple[Sequence[Applied | Refused], Sequence[Push]] | None = None
        self._fetching: Future[list[int]] | None = None
        self._accrual = Accrual(self._gradients, device_of(problem), config.n_push)
        self._acknowledged = Progress(0, 0)
        self._tally = Tally()
        self._num_bad = 0  # pushes in a row that no shard could use
        self._lock = threading.Lock()  # guards the tally

    def take(self) -> tuple[Tally, Progress]:
        """What happened since the last call, and how far the acknowledged pushes reach."""
        with self._lock:
            tally, self._tally = self._tally, Tally()
        return tally, self._acknowledged

    def run(self, minibatches: Iterator[Answer]) -> None:
        """Work until `minibatches` ends and every push has been answered.

        Raises:
            FencedReplicaError: this life is over; its unacknowledged work is with others.
        """
        program = downpour(self._config)
        with ThreadPoolExecutor(1, "fetch") as fetch, ThreadPoolExecutor(1, "push") as push:
            instruction = next(program)
            while True:
                answer: Answer = None
                match instruction:
                    case Take():
                        answer = self._waited(lambda: next(minibatches, None))
                        if isinstance(answer, Idle):
                            self._settle()
                            self._report(self)
                    case Fetch():
                        self._fetch(fetch)
                    case Compute():
                        self._compute(instruction)
                        self._report(self)
                    case StartPush():
                        self._push(push, instruction)
                try:
                    instruction = program.send(answer)
                except StopIteration:
                    break
            self._drain()
            self._report(self)

    def _fetch(self, thread: ThreadPoolExecutor) -> None:
        if not self._config.overlap_fetch:
            self._drain()  # so that the parameters hold our own pushes
            self._start_fetch(thread)
            self._finish_fetch()
            return
        if self._fetching is None:  # the very first parameters have to be waited for
            self._start_fetch(thread)
        self._finish_fetch()
        self._start_fetch(thread)

    def _start_fetch(self, thread: ThreadPoolExecutor) -> None:
        self._fetching = thread.submit(self._server.fetch, 1 - self._front)

    def _finish_fetch(self) -> None:
        assert self._fetching is not None
        self._versions = self._waited(self._fetching.result)
        self._front = 1 - self._front

    def _compute(self, instruction: Compute) -> None:
        minibatch = instruction.minibatch
        parameters, slot = self._parameters[self._front], self._gradients[self._slot]
        if instruction.first:
            self._wait_for_slot(self._slot)
        seed_draws(minibatch.seed)
        loss, grad = self._accrual.add(
            slot,
            lambda grad: self._problem.gradient_(parameters, minibatch.payload, grad),
            first=instruction.first,
        )
        if self._config.alpha:
            parameters.add_(grad.to(parameters.device), alpha=-self._config.alpha)
        with self._lock:
            self._tally.loss_sum += loss * minibatch.num_samples
            self._tally.samples += minibatch.num_samples
            self._tally.steps += 1

    def _push(self, thread: ThreadPoolExecutor, instruction: StartPush) -> None:
        self._accrual.finish(self._gradients[self._slot])
        self._sequence += 1
        replica, incarnation = self._identity
        pushes = [
            Push(
                replica,
                incarnation,
                self._sequence,
                version,
                instruction.progress,
                instruction.scale,
            )
            for version in self._versions
        ]
        if instruction.then_fetch:
            self._exchange(pushes)
        else:
            self._settle()
            self._pushes[self._slot] = thread.submit(self._send, self._slot, pushes)
            self._slot = (self._slot + 1) % NUM_SLOTS

    def _exchange(self, pushes: Sequence[Push]) -> None:
        """Push and fetch in this thread: it has nothing to compute until both are done.

        So the same slot and the same buffer serve at each step, and more of them stays in cache;
        unless the push is not durable yet: then its slot is kept until it is. That is asked when
        somebody wants to know, a mini-batch later: the answers lie in the sockets then, and no
        thread had to be woken for each while this one computes.
        """
        self._drain()  # the connections are the push thread's
        answers, self._versions = self._waited(
            lambda: self._server.exchange(self._slot, pushes, self._front)
        )
        if all(isinstance(answer, Refused) or answer.durable for answer in answers):
            self._note(answers, pushes)
        else:
            self._owed = answers, pushes
            self._slot = (self._slot + 1) % NUM_SLOTS

    def _settle(self) -> None:
        """Wait until what was exchanged last is durable."""
        if self._owed:
            answers, pushes = self._owed
            self._owed = None
            self._note(self._waited(lambda: self._server.settle(answers)), pushes)

    def _send(self, slot: int, pushes: Sequence[Push]) -> None:
        self._note(self._server.push(slot, pushes), pushes)

    def _note(self, answers: Sequence[Applied | Refused], pushes: Sequence[Push]) -> None:
        bad = [a.message for a in answers if isinstance(a, Refused) and a.error in BAD]
        self._num_bad = self._num_bad + 1 if bad else 0
        with self._lock:
            for shard, answer in zip(self._shards, answers, strict=True):
                match answer:
                    case Refused("StaleIncarnationError", message):
                        raise FencedReplicaError(message)
                    case Refused(_, message):
                        self._tally.refused[message] += 1
                    case Applied(_, staleness, duplicate, _) if not duplicate:
                        self._tally.staleness[shard, staleness] += 1
        self._acknowledged = pushes[0].progress
        if self._num_bad >= self._config.max_bad_pushes:
            raise QuarantinedReplicaError(
                f"{self._num_bad} pushes in a row were not finite or too large; the last: {bad[0]}"
            )

    def _wait_for_slot(self, slot: int) -> None:
        if (push := self._pushes[slot]) is not None:
            self._waited(push.result)
            self._pushes[slot] = None

    def _drain(self) -> None:
        self._settle()
        for slot in range(NUM_SLOTS):
            self._wait_for_slot(slot)

    def _waited(self, wait: Callable[[], T]) -> T:
        start = time.monotonic()
        try:
            return wait()
        finally:
            with self._lock:
                self._tally.waiting_s += time.monotonic() - start
