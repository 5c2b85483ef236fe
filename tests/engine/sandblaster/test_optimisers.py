"""Every optimiser on replicas and shards that keep dying: the iterates are those of one process."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from engine.batch.config import OptimiserConfig
from engine.batch.local import LocalStore
from engine.batch.loop import Record
from engine.batch.methods import program
from engine.batch.minimise import drive
from engine.batch.names import START
from engine.batch.program import Commit, Evaluate, Run, Span
from engine.batch.vector import copy
from engine.layout import Layout
from engine.ledger import Lease
from engine.problem import Minibatch
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.inprocess import Faults, InProcess
from engine.sandblaster.plan import planned_portions
from engine.sandblaster.portions import clipped
from tests.engine.batch.objectives import breast_cancer
from tests.engine.batch.optimisers import EVERY
from tests.engine.sandblaster.worlds import ALL_FAULTS, CLUSTER

NUM_ITERATIONS = 10
#: Sums in another order differ in their last bits, and iterates by what these have grown to.
TOLERANCE = 1e-12


class Logistic:
    """Mean logistic loss with l2 = 0.1 on real data, in three units of different sizes."""

    unit_sizes = (200, 169, 200)
    layout = Layout(("w",), ((30,),), torch.float64)

    def initial(self) -> Tensor:
        return torch.zeros(30, dtype=torch.float64)

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        first = sum(self.unit_sizes[: lease.unit])
        for start in range(lease.start, lease.stop, size):
            stop = min(start + size, lease.stop)
            yield Minibatch(slice(first + start, first + stop), stop - start)

    def gradient_(self, w: Tensor, payload: slice, grad: Tensor) -> float:
        x, y = (part[payload] for part in breast_cancer())
        margins = y * (x @ w)
        grad.copy_(x.T @ (-y * torch.sigmoid(-margins)) / len(y) + 0.1 * w)
        return self.loss(w, payload)

    def loss(self, w: Tensor, payload: slice) -> float:
        x, y = (part[payload] for part in breast_cancer())
        return float(functional.softplus(-(y * (x @ w))).mean() + 0.05 * w.dot(w))

    def validate(self, w: Tensor) -> dict[str, float]:
        return {}


class Step(NamedTuple):
    """One iterate."""

    loss: float
    gradient_norm: float
    step_length: float
    point: Tensor


def settings(name: str) -> SandblasterConfig:
    optimiser: OptimiserConfig = replace(EVERY[name], max_iterations=NUM_ITERATIONS)
    return SandblasterConfig(
        optimiser=optimiser,
        minibatch_size=10,
        portion_minibatches=2,
        deterministic=True,
        order_window=4,
    )


def by_workers(name: str, folder: Path, seed: int, faults: Faults | None = None) -> list[Step]:
    folder.mkdir()
    config, found = settings(name), list[Step]()
    world = InProcess(Logistic(), config, CLUSTER, folder, seed=seed, faults=faults)
    world.run([copy(START, "values")])
    steps, answer = program(config.optimiser), None
    while True:
        try:
            instruction = steps.send(answer)
        except StopIteration:
            break
        answer = None
        match instruction:
            case Run(commands):
                answer = world.run(commands)
            case Evaluate(point, grad, samples):
                answer = world.evaluate(point, grad, samples)
            case Commit(record):
                found.append(step(record, world.vector(record["iterate"]["point"])))
    assert not faults or sum(world.happened.values()) > 50
    return found


def by_one_process(name: str) -> list[Step]:
    problem, config = Logistic(), settings(name)
    store = LocalStore(**{START: problem.initial()})
    found: list[Step] = []

    def objective(x: Tensor, grad: Tensor | None, span: Span | None) -> float:
        """The mean over some samples, as they are numbered in the run, one after another."""
        portions = planned_portions(problem.unit_sizes, config)
        total, num_seen, part = torch.zeros_like(x), 0, torch.empty_like(x)
        loss = 0.0
        for portion in clipped(portions, *(span or (0, sum(problem.unit_sizes)))):
            lease = Lease(0, 0, *portion[1:])
            for payload, count in problem.minibatches(lease, config.minibatch_size):
                loss += problem.gradient_(x, payload, part) * count
                total.add_(part, alpha=count)
                num_seen += count
        if grad is not None:
            grad.copy_(total / num_seen)
        return loss / num_seen

    def commit(record: Record) -> None:
        found.append(step(record, store.vectors[record["iterate"]["point"]].clone()))

    drive(store, objective, config.optimiser, None, commit)
    return found


def step(record: Record, point: Tensor) -> Step:
    at = record["iterate"]
    return Step(at["loss"], at["gradient_norm"], at["step_length"], point)


@cache
def calm(name: str, folder: Path) -> list[Step]:
    return by_workers(name, folder, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("calm")


@pytest.mark.parametrize("name", EVERY)
def test_iterates_are_those_of_a_vector_in_one_process(name, folder):
    found, expected = calm(name, folder / name), by_one_process(name)
    assert len(found) == len(expected) == NUM_ITERATIONS + 1
    for mine, other in zip(found, expected, strict=True):
        assert mine.loss == pytest.approx(other.loss, rel=TOLERANCE)
        # Step lengths follow from differences of nearly equal losses.
        assert mine.step_length == pytest.approx(other.step_length, rel=1000 * TOLERANCE)
        torch.testing.assert_close(mine.point, other.point, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("name", EVERY)
def test_no_bit_of_any_iterate_changes_while_everything_dies(name, folder, tmp_path):
    faulty = by_workers(name, tmp_path / "faulty", 1, ALL_FAULTS)
    for mine, other in zip(faulty, calm(name, folder / name), strict=True):
        assert mine[:3] == other[:3]
        assert torch.equal(mine.point, other.point)
