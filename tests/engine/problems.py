"""A small learning problem: the same data in every process, a gradient takes a millisecond."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engine.config import (
    AdagradConfig,
    AdamWConfig,
    MomentumConfig,
    RmspropConfig,
    RuleConfig,
    SgdConfig,
    TrainingConfig,
)
from engine.ledger import Lease, Ledger
from engine.problem import Minibatch, Problem
from engine.torch_problem import TorchProblem

UNIT_SIZES = (40, 30, 50)
NUM_SAMPLES = sum(UNIT_SIZES)
#: One of each kind, with everything switched on that can be.
RULES: tuple[RuleConfig, ...] = (
    SgdConfig(learning_rate=0.1, weight_decay=0.01),
    MomentumConfig(learning_rate=0.05, momentum=0.9, weight_decay=0.01),
    MomentumConfig(learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    AdagradConfig(gamma=0.1, epsilon=1e-10, weight_decay=0.01),
    RmspropConfig(learning_rate=0.01, smoothing=0.9, weight_decay=0.01),
    AdamWConfig(learning_rate=0.01, weight_decay=0.1),
)


def rule_name(rule: RuleConfig) -> str:
    """For the names of parametrised tests."""
    return "nesterov" if getattr(rule, "nesterov", False) else rule.name


def data() -> tuple[Tensor, Tensor]:
    """Points (N, 6) and their classes (N,), separable by a line but for a few."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(NUM_SAMPLES, 6, generator=generator)
    noisy = points + 0.1 * torch.randn(NUM_SAMPLES, 6, generator=generator)
    return points, (noisy @ torch.randn(6, 3, generator=generator)).argmax(1)


def classifier(
    module: nn.Module | None = None, kind: type[TorchProblem] = TorchProblem
) -> TorchProblem:
    """Three classes of points by `module`, or by a network of 83 parameters."""
    points, classes = data()

    def minibatches(lease: Lease, size: int) -> Iterator[Minibatch]:
        first = sum(UNIT_SIZES[: lease.unit])
        for start in range(lease.start, lease.stop, size):
            stop = min(start + size, lease.stop)
            part = slice(first + start, first + stop)
            yield Minibatch((points[part], classes[part]), stop - start)

    def loss(module: nn.Module, payload: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(module(payload[0]), payload[1])

    def measure(module: nn.Module) -> dict[str, float]:
        return {"error": float((module(points).argmax(1) != classes).float().mean())}

    return kind(module or network(), loss, UNIT_SIZES, minibatches, measure)


def network() -> nn.Module:
    """The classifier's network, the same at each call."""
    module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return module


def forgetful() -> TorchProblem:
    """The classifier with dropout, whose gradients depend on what is drawn."""
    linear, tanh, head = network().children()
    return classifier(nn.Sequential(linear, tanh, nn.Dropout(0.5), head))


NUM_MEMBERS = 2


class Members(nn.Module):
    """Networks side by side, whose mean counts, or one of them alone."""

    def __init__(self, only: int | None = None) -> None:
        super().__init__()
        self.members = nn.ModuleList(network() for _ in range(NUM_MEMBERS))
        self._chosen = range(NUM_MEMBERS) if only is None else (only,)

    def forward(self, points: Tensor) -> Tensor:
        return torch.stack([self.members[k](points) for k in self._chosen]).mean(0)


class Ensemble(TorchProblem):
    """Each replica works on one member: 83 parameters of 166."""

    def tensors_of(self, replica: int) -> list[str]:
        return [n for n in self.layout.names if n.startswith(f"members.{replica % NUM_MEMBERS}.")]

    def of_replica(self, replica: int) -> Problem:
        return classifier(Members(replica % NUM_MEMBERS))


def ensemble() -> TorchProblem:
    """Members of two replicas, which share a shard if there are four or two of those."""
    return classifier(Members(), Ensemble)


def in_whole_registers() -> nn.Module:
    """A network whose tensors all fill vector registers: torch's fused kernels round the last
    elements of other tensors otherwise, and a flat vector has its last elements elsewhere."""
    generator = torch.Generator().manual_seed(1)
    layers = [nn.Linear(6, 16, bias=False), nn.Tanh(), nn.Linear(16, 3, bias=False)]
    for layer in layers[::2]:
        nn.init.normal_(layer.weight, std=0.5, generator=generator)
    return nn.Sequential(*layers)


def in_order(problem: Problem, config: TrainingConfig) -> Iterator[Minibatch]:
    """Every mini-batch of a run, in the order in which one replica alone gets them."""
    ledger = Ledger(
        problem.unit_sizes,
        config.num_epochs,
        lease_size=8 * config.minibatch_size,
        seed=config.seed,
    )
    while lease := ledger.lease((0, 1)):
        yield from problem.minibatches(lease, config.minibatch_size)


def use_nearest_roots(monkeypatch: Any) -> None:
    """Let torch.optim round its roots to nearest: MKL's are not, for one argument in 150."""
    monkeypatch.setattr(Tensor, "sqrt", lambda self: torch.from_numpy(np.sqrt(self.numpy())))
