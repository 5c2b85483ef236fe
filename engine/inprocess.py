"""All roles in one thread, in an order drawn from a seed: for tests, replay and small problems.

The same shards, replicas and ledger as in a real run; only threads, sockets and processes are
missing. `engine.faults` says what can go wrong in it.
"""

import random
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.clipping import with_clipping
from engine.config import DownpourConfig
from engine.downpour import Answer, Compute, Fetch, Instruction, StartPush, Take, downpour
from engine.draws import seed_draws
from engine.faults import FaultPlan
from engine.instructions import RunFailedError
from engine.ledger import Holder, Ledger
from engine.loader import LeaseReply, leased_minibatches
from engine.mortal_shard import MortalShard, ShardKilledError
from engine.partition import problem_of, shards_by_replica
from engine.problem import Problem, require_samples
from engine.push import HugePushError, NonFinitePushError, Push, PushRefusedError
from engine.schedule import scale_at


class Watcher(Protocol):
    """Sees what a run does, for an oracle to judge."""

    def delivered(self, shard: int, push: Push, grad: Tensor) -> None:
        """A push reaches a shard, for the first time or again."""

    def acknowledged(self, push: Push) -> None:
        """The replica has the answer of every shard."""

    def fenced(self, holder: Holder) -> None:
        """No shard takes pushes of this life any more."""


@dataclass(frozen=True)
class InProcessResult:
    """Where a run ended."""

    parameters: Tensor  # (P,)
    versions: tuple[int, ...]  # pushes that each shard applied
    staleness: Counter[int]
    refused: Counter[str]  # name of the error -> pushes, over shards
    num_counted: int
    order: tuple[tuple[int, int, int], ...]  # (replica, incarnation, sequence) as acknowledged
    restarts: int  # of shards


class _Replica:
    """One life of one replica: its program, its vectors, and the instruction it has not done."""

    def __init__(self, index: int, incarnation: int, world: "_World") -> None:
        self.holder = (index, incarnation)
        self.problem = with_clipping(problem_of(world.problem, index), world.config.clip)
        self.shards = world.shards_of[index]
        self.sequence = self.step = self.pushed_step = 0
        self.parameters = torch.zeros_like(world.initial)
        self.accrued = torch.zeros_like(world.initial)
        self.versions = [0] * len(world.shards)
        self.pending: dict[int, tuple[Push, Tensor]] = {}  # shard -> what it has yet to answer
        self.num_bad = 0  # pushes in a row that no shard could use
        self.minibatches = leased_minibatches(
            lambda: world.lend(self.holder),
            self.problem,
            world.config.minibatch_size,
            world.config.seed,
            poll_s=0.0,
        )
        self.program: Generator[Instruction, Answer, None] = downpour(world.config)
        self.instruction: Instruction = next(self.program)


class _World:
    def __init__(
        self,
        problem: Problem,
        config: DownpourConfig,
        num_replicas: int,
        num_shards: int,
        faults: FaultPlan,
        watcher: Watcher | None,
    ) -> None:
        self.problem = problem
        self.config, self.faults, self.watcher = config, faults, watcher
        self.initial = problem.initial()
        self.slices = problem.layout.slices(num_shards)
        self.shards_of = shards_by_replica(problem, num_replicas, self.slices)
        self.shards = [
            MortalShard(self.initial[part], config.rule, config.max_staleness, config.max_push_norm)
            for part in self.slices
        ]
        self.late: list[tuple[int, Push, Tensor]] = []  # on their way, out of order
        self.ledger = Ledger(
            problem.unit_sizes,
            config.num_epochs,
            lease_size=8 * config.minibatch_size,
            seed=config.seed,
        )
        self.staleness: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        self.bad: dict[Holder, str] = {}  # whose newest push was no number, or huge; the reason
        self.last_bad = ""  # reason
        self.order: list[tuple[int, int, int]] = []
        self.num_steps = 0  # acknowledged
        self.pioneer: int | None = None  # the replica that works alone in the warm start

    def lend(self, holder: tuple[int, int]) -> LeaseReply:
        lease = None if self._held_back(holder[0]) else self.ledger.lease(holder)
        scale = scale_at(self.config.schedule, self.ledger.fraction(lease)) if lease else 1.0
        return LeaseReply(lease, scale, self.ledger.complete)

    def _held_back(self, replica: int) -> bool:
        """Warm start: one replica alone until it has done its steps."""
        if self.num_steps >= self.config.warm_start.steps:
            return False
        if self.pioneer is None:
            self.pioneer = replica
        return replica != self.pioneer

    def carry_out(self, replica: _Replica) -> bool:
        """One instruction of one replica, or another attempt; False when its program has ended."""
        answer: Answer = None
        match replica.instruction:
            case Take():
                answer = next(replica.minibatches, None)
            case Fetch():
                self._fetch(replica)
            case Compute():
                self._compute(replica, replica.instruction)
            case StartPush():
                if not self._push(replica, replica.instruction):
                    return True
                if replica.num_bad >= self.config.max_bad_pushes:
                    self.fence(replica)  # it is of no use: others do its work
                    self.pioneer = None
                    return False
                if replica.instruction.then_fetch:
                    self._fetch(replica)
        try:
            replica.instruction = replica.program.send(answer)
        except StopIteration:
            return False
        return True

    def _fetch(self, replica: _Replica) -> None:
        for k in replica.shards:
            own = replica.parameters[self.slices[k]]
            replica.versions[k] = self.shards[k].shard.fetch(own)

    def _compute(self, replica: _Replica, instruction: Compute) -> None:
        grad = torch.empty_like(replica.accrued)
        seed_draws(instruction.minibatch.seed)
        replica.problem.gradient_(replica.parameters, instruction.minibatch.payload, grad)
        replica.accrued = grad.clone() if instruction.first else replica.accrued + grad
        if self.config.alpha:
            replica.parameters.add_(grad, alpha=-self.config.alpha)
        replica.step += 1

    def _push(self, replica: _Replica, instruction: StartPush) -> bool:
        """Send what no shard has answered yet; True once every shard has answered."""
        index, incarnation = replica.holder
        if not replica.pending:
            replica.sequence += 1
            for k in replica.shards:
                push = Push(
                    index,
                    incarnation,
                    replica.sequence,
                    replica.versions[k],
                    instruction.progress,
                    instruction.scale,
                )
                replica.pending[k] = (push, replica.accrued[self.slices[k]])
        for shard, (push, grad) in list(replica.pending.items()):
            if self._send(shard, push, grad, replica.step):
                del replica.pending[shard]
        if replica.pending:
            return False
        self._count_bad(replica)
        self.order.append((index, incarnation, replica.sequence))
        self.num_steps += replica.step - replica.pushed_step
        replica.pushed_step = replica.step
        self.ledger.count(replica.holder, instruction.progress)
        if self.watcher:
            self.watcher.acknowledged(push)
        return True

    def _send(self, shard: int, push: Push, grad: Tensor, step: int) -> bool:
        """Send one push to one shard over an unreliable network; True when the reply came."""
        place = (push.replica, step)
        if self.faults.fires("lose_request", *place):
            return False
        if self.faults.fires("reorder", *place):
            self.late.append((shard, push, grad.clone()))
            return False
        if self.faults.fires("kill_shard", *place):
            victim = self.shards[shard]
            victim.doom(self.faults.draw(below=victim.num_points))
        if not self._deliver(shard, push, grad):
            return False
        if self.faults.fires("duplicate", *place):
            self._deliver(shard, push, grad)
        return not self.faults.fires("lose_reply", *place)

    def _deliver(self, shard: int, push: Push, grad: Tensor) -> bool:
        """The push arrives; True when the shard lives to answer it."""
        if self.watcher:
            self.watcher.delivered(shard, push, grad)
        try:
            applied = self.shards[shard].push(push, grad)
        except ShardKilledError:
            self.shards[shard].take_over(grad)
            return False
        except PushRefusedError as error:
            self.refused[type(error).__name__] += 1
            if isinstance(error, NonFinitePushError | HugePushError):
                self.bad[push.replica, push.incarnation] = str(error)
            return True
        if not applied.duplicate:
            self.staleness[applied.staleness] += 1
        return True

    def deliver_late(self) -> None:
        """Let one of the pushes that were held back arrive, if there are any."""
        if self.late:
            self._deliver(*self.late.pop(self.faults.draw(below=len(self.late))))

    def _count_bad(self, replica: _Replica) -> None:
        reason = self.bad.pop(replica.holder, None)
        replica.num_bad = replica.num_bad + 1 if reason else 0
        self.last_bad = reason or self.last_bad

    def kill(self, replica: _Replica) -> _Replica:
        """Fence a replica, and start its next life."""
        self.fence(replica)
        index, incarnation = replica.holder
        return _Replica(index, incarnation + 1, self)

    def fence(self, replica: _Replica) -> None:
        """End a replica's life on every shard, and settle its leases."""
        reached = [shard.shard.fence(*replica.holder) for shard in self.shards]
        furthest = max((p for p in reached if p), default=None)
        self.ledger.settle(replica.holder, furthest)
        if self.watcher:
            self.watcher.fenced(replica.holder)


def train_in_process(
    problem: Problem,
    config: DownpourConfig,
    *,
    num_replicas: int,
    num_shards: int,
    seed: int = 0,
    faults: FaultPlan | None = None,
    watcher: Watcher | None = None,
) -> InProcessResult:
    """Downpour SGD with every role in this thread; the same seed gives the same result.

    What it has dies with this process, whatever `config.durability` says.

    Args:
        seed: decides which replica carries out its next instruction.

    Raises:
        ValueError: no replica, or no sample; a warm start by seconds or a metric, for there is no
            clock and no validation.
        RunFailedError: every replica pushed NaN, infinity or what is too large, again and again.
    """
    require_samples(problem)
    if num_replicas < 1:
        raise ValueError(f"num_replicas={num_replicas}: want one or more")
    if config.warm_start.seconds or config.warm_start.metric is not None:
        raise ValueError(
            f"warm_start seconds={config.warm_start.seconds:g} metric={config.warm_start.metric}: "
            "a run in one process has no clock and validates nothing; give warm_start.steps"
        )
    faults = faults or FaultPlan()
    world = _World(problem, config, num_replicas, num_shards, faults, watcher)
    rng = random.Random(seed)
    running = [_Replica(index, 1, world) for index in range(num_replicas)]
    while running:
        position = rng.randrange(len(running))
        replica = running[position]
        if faults.fires("kill_replica", replica.holder[0], replica.step):
            running[position] = world.kill(replica)
        elif not world.carry_out(replica):
            del running[position]
        if world.late and not faults.draw(below=4):
            world.deliver_late()
    if not world.ledger.complete:
        raise RunFailedError(
            f"every replica computes gradients without value; last: {world.last_bad}"
        )
    return InProcessResult(
        parameters=torch.cat([shard.shard.copy()[0] for shard in world.shards]),
        versions=tuple(shard.shard.version for shard in world.shards),
        staleness=world.staleness,
        refused=world.refused,
        num_counted=world.ledger.num_counted,
        order=tuple(world.order),
        restarts=sum(shard.epoch - 1 for shard in world.shards),
    )
