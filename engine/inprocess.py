"""All roles in one thread, in an order drawn from a seed: for tests, replay and small problems.

The same shards, replicas and ledger as in a real run; only threads, sockets and processes are
missing. Faults are scripted by (replica, step) and counted when they fire.
"""

import random
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from engine.clipping import with_clipping
from engine.config import DownpourConfig
from engine.downpour import Answer, Compute, Fetch, Instruction, StartPush, Take, downpour
from engine.ledger import Ledger
from engine.loader import LeaseReply, leased_minibatches
from engine.problem import Problem
from engine.rules import make_rule
from engine.schedule import scale_at
from engine.shard import ParameterShard, Push, PushRefusedError
from engine.state import ShardState


@dataclass
class FaultPlan:
    """What goes wrong, and how often it did. A step is one mini-batch of one replica."""

    kill_at: set[tuple[int, int]] = field(default_factory=set)  # (replica, step)
    duplicate_at: set[tuple[int, int]] = field(default_factory=set)  # its push is sent twice
    fired: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class InProcessResult:
    """Where a run ended."""

    parameters: Tensor  # (P,)
    versions: tuple[int, ...]  # pushes that each shard applied
    staleness: Counter[int]
    refused: Counter[str]  # name of the error -> pushes, over shards
    num_counted: int
    order: tuple[tuple[int, int, int], ...]  # (replica, incarnation, sequence) as applied


class _Replica:
    """One life of one replica: its program, its vectors, and the instruction it has not done."""

    def __init__(self, index: int, incarnation: int, world: "_World") -> None:
        self.holder = (index, incarnation)
        self.sequence = self.step = 0
        self.parameters = torch.zeros_like(world.initial)
        self.accrued = torch.zeros_like(world.initial)
        self.versions = [0] * len(world.shards)
        self.minibatches = leased_minibatches(
            lambda: world.lend(self.holder), world.problem, world.config.minibatch_size, poll_s=0.0
        )
        self.program: Generator[Instruction, Answer, None] = downpour(world.config)
        self.instruction: Instruction = next(self.program)


class _World:
    def __init__(
        self, problem: Problem, config: DownpourConfig, num_shards: int, faults: FaultPlan
    ) -> None:
        self.problem = with_clipping(problem, config.clip)
        self.config, self.faults = config, faults
        self.initial = problem.initial()
        self.slices = problem.layout.slices(num_shards)
        self.shards = [self._shard(self.initial[part]) for part in self.slices]
        self.ledger = Ledger(
            problem.unit_sizes,
            config.num_epochs,
            lease_size=8 * config.minibatch_size,
            seed=config.seed,
        )
        self.staleness: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()
        self.order: list[tuple[int, int, int]] = []

    def _shard(self, values: Tensor) -> ParameterShard:
        rule = make_rule(self.config.rule)
        state = ShardState.in_memory(values.numel(), len(rule.slots), values.dtype)
        state.fill(values, [torch.zeros_like(values) for _ in rule.slots], version=0)
        return ParameterShard(state, rule, epoch=1, max_staleness=self.config.max_staleness)

    def lend(self, holder: tuple[int, int]) -> LeaseReply:
        fraction = self.ledger.num_leased / self.ledger.num_total
        scale = scale_at(self.config.schedule, fraction)
        return LeaseReply(self.ledger.lease(holder), scale, self.ledger.complete)

    def carry_out(self, replica: _Replica) -> bool:
        """One instruction of one replica; False when its program has ended."""
        answer: Answer = None
        match replica.instruction:
            case Take():
                answer = next(replica.minibatches, None)
            case Fetch():
                self._fetch(replica)
            case Compute():
                self._compute(replica, replica.instruction)
            case StartPush():
                self._push(replica, replica.instruction)
                if replica.instruction.then_fetch:
                    self._fetch(replica)
        try:
            replica.instruction = replica.program.send(answer)
        except StopIteration:
            return False
        return True

    def _fetch(self, replica: _Replica) -> None:
        for index, (shard, part) in enumerate(zip(self.shards, self.slices, strict=True)):
            replica.versions[index] = shard.fetch(replica.parameters[part])

    def _compute(self, replica: _Replica, instruction: Compute) -> None:
        grad = torch.empty_like(replica.accrued)
        self.problem.gradient_(replica.parameters, instruction.minibatch.payload, grad)
        replica.accrued = grad.clone() if instruction.first else replica.accrued + grad
        if self.config.alpha:
            replica.parameters.add_(grad, alpha=-self.config.alpha)
        replica.step += 1

    def _push(self, replica: _Replica, instruction: StartPush) -> None:
        replica.sequence += 1
        index, incarnation = replica.holder
        times = 2 if (index, replica.step) in self.faults.duplicate_at else 1
        self.faults.fired["duplicate"] += times - 1
        for _ in range(times):
            for k, (shard, part) in enumerate(zip(self.shards, self.slices, strict=True)):
                push = Push(
                    index,
                    incarnation,
                    replica.sequence,
                    replica.versions[k],
                    instruction.progress,
                    instruction.scale,
                )
                try:
                    applied = shard.push(push, replica.accrued[part])
                except PushRefusedError as error:
                    self.refused[type(error).__name__] += 1
                    continue
                if not applied.duplicate:
                    self.staleness[applied.staleness] += 1
        self.order.append((index, incarnation, replica.sequence))
        self.ledger.count(replica.holder, instruction.progress)

    def kill(self, replica: _Replica) -> _Replica:
        """Fence a replica on every shard, settle its leases, and start its next life."""
        reached = [shard.fence(*replica.holder) for shard in self.shards]
        furthest = max((p for p in reached if p), default=None)
        self.ledger.settle(replica.holder, furthest)
        self.faults.fired["kill"] += 1
        index, incarnation = replica.holder
        return _Replica(index, incarnation + 1, self)


def train_in_process(
    problem: Problem,
    config: DownpourConfig,
    *,
    num_replicas: int,
    num_shards: int,
    seed: int = 0,
    faults: FaultPlan | None = None,
) -> InProcessResult:
    """Downpour SGD with every role in this thread; the same seed gives the same result.

    Args:
        seed: decides which replica carries out its next instruction.
    """
    world = _World(problem, config, num_shards, faults or FaultPlan())
    rng = random.Random(seed)
    running = [_Replica(index, 1, world) for index in range(num_replicas)]
    while running:
        position = rng.randrange(len(running))
        replica = running[position]
        place = (replica.holder[0], replica.step)
        if place in world.faults.kill_at:
            world.faults.kill_at.discard(place)
            running[position] = world.kill(replica)
        elif not world.carry_out(replica):
            del running[position]
    return InProcessResult(
        parameters=torch.cat([shard.copy()[0] for shard in world.shards]),
        versions=tuple(shard.version for shard in world.shards),
        staleness=world.staleness,
        refused=world.refused,
        num_counted=world.ledger.num_counted,
        order=tuple(world.order),
    )
