"""Whole evaluations in one thread, in seeded orders, with everything killed at random."""

from collections import Counter

import pytest
import torch

from engine.batch.config import LbfgsConfig
from engine.batch.methods import program
from engine.batch.names import START
from engine.batch.program import Commit, Evaluate, Run
from engine.batch.vector import Combine, copy
from engine.sandblaster.inprocess import Faults, InProcess
from tests.engine.sandblaster.worlds import (
    ALL_FAULTS,
    NUM_SAMPLES,
    exact_gradient,
    exact_loss,
    in_process,
)

NUM_SEEDS = 500


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_gradient_is_exactly_that_of_the_batch_under_random_faults(tmp_path, deterministic):
    happened: Counter[str] = Counter()
    backups = won = 0
    for seed in range(NUM_SEEDS):
        world = in_process(
            tmp_path / str(seed),
            seed,
            ALL_FAULTS,
            deterministic=deterministic,
            order_window=4,
            max_copies=1 + seed % 3,
        )
        world.run([copy("x0", "values"), Combine("g0", ())])
        for point, grad in (("x0", "g0"), ("x1", "g1")):
            world.run([Combine("x1", ((1.0, "x0"), (-1.0, "g0")))])
            loss = world.evaluate(point, grad, None)
            x = world.vector(point)
            # x0 is whole, so the gradient is exact; at x1 only rounding may differ.
            tolerance = 0.0 if point == "x0" else 1e-12
            torch.testing.assert_close(
                world.vector(grad), exact_gradient(x), rtol=tolerance, atol=tolerance
            )
            assert loss == pytest.approx(exact_loss(x), rel=1e-13), seed
        happened += world.happened
        rows = [row for row in world.rows if row["event"] == "evaluation"]
        assert [row["batch_samples"] for row in rows] == [NUM_SAMPLES] * 2
        backups += sum(row["backups"] for row in rows)
        won += sum(row["backups_won"] for row in rows)
    assert all(happened[fault] > NUM_SEEDS / 5 for fault in vars(ALL_FAULTS)), happened
    assert backups > won > NUM_SEEDS / 5


def test_in_order_the_bits_are_the_same_whoever_computes_what(tmp_path):
    def gradient(seed: int, faults: Faults | None) -> bytes:
        world = in_process(
            tmp_path / str(seed), seed, faults, whole=False, deterministic=True, order_window=3
        )
        world.run([copy("x0", "values")])
        loss = world.evaluate("x0", "g0", None)
        return world.vector("g0").numpy().tobytes() + str(loss).encode()

    calm = gradient(0, None)
    assert all(gradient(seed, ALL_FAULTS) == calm for seed in range(1, 60))


def test_without_order_the_bits_differ_and_so_the_test_above_can_fail(tmp_path):
    gradients = set()
    for seed in range(10):
        world = in_process(tmp_path / str(seed), seed, whole=False)
        world.run([copy("x0", "values")])
        world.evaluate("x0", "g0", None)
        gradients.add(world.vector("g0").numpy().tobytes())
    assert len(gradients) > 1


def test_a_batch_may_be_a_stretch_of_the_data(tmp_path):
    world = in_process(tmp_path / "world", 0, ALL_FAULTS)
    world.run([copy("x0", "values")])
    world.evaluate("x0", "g0", (5, 22))
    samples = world._problem.samples[5:22]
    torch.testing.assert_close(world.vector("g0"), (world.vector("x0") - samples).mean(0))


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_loss_alone_moves_no_vector(tmp_path, deterministic):
    settings = {"deterministic": deterministic, "order_window": 2}
    world = in_process(tmp_path / "world", 0, ALL_FAULTS, **settings)
    world.run([copy("x0", "values")])
    assert world.evaluate("x0", None, None) == pytest.approx(exact_loss(world.vector("x0")))
    assert not list((tmp_path / "world").glob("*accrued*"))


@pytest.mark.parametrize("seed", range(20))
def test_lbfgs_goes_through_the_same_iterates_bit_for_bit_while_everything_dies(tmp_path, seed):
    def iterates(name: str, seed: int, faults: Faults | None) -> list[tuple]:
        world = in_process(tmp_path / name, seed, faults, whole=False, deterministic=True)
        world.run([copy(START, "values")])
        return followed(world)

    assert iterates("faulty", seed + 1, ALL_FAULTS) == iterates("calm", 0, None)


def followed(world: InProcess) -> list[tuple]:
    """Loss and point of every iterate of L-BFGS."""
    steps, answer, found = program(LbfgsConfig(max_iterations=3)), None, []
    while True:
        try:
            instruction = steps.send(answer)
        except StopIteration:
            return found
        answer = None
        match instruction:
            case Run(commands):
                answer = world.run(commands)
            case Evaluate(point, grad, samples):
                answer = world.evaluate(point, grad, samples)
            case Commit(record):
                at = record["iterate"]
                found.append((at["loss"], world.vector(at["point"]).numpy().tobytes()))
