"""Scripted faults: each fires, is counted, and no sample is lost or counted twice."""

import itertools
import math
from dataclasses import replace

import pytest
import torch

from engine.config import DownpourConfig, SgdConfig, WarmStartConfig
from engine.faults import FaultPlan, Kind
from engine.inprocess import InProcessResult, train_in_process
from engine.instructions import RunFailedError
from engine.torch_problem import TorchProblem
from tests.engine.fault_storm import Counting
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES, classifier

CONFIG = DownpourConfig(minibatch_size=8, num_epochs=3)
NUM_MINIBATCHES = 3 * sum(-(-size // 8) for size in UNIT_SIZES)


def train(faults: FaultPlan | None = None, **changed) -> InProcessResult:
    arguments = {"num_replicas": 3, "num_shards": 2, "seed": 5, **changed}
    return train_in_process(classifier(), CONFIG, faults=faults, **arguments)


def planned(places: list[tuple[int, int]], kind: Kind = "kill_replica") -> FaultPlan:
    faults = FaultPlan()
    for replica, step in places:
        faults.fail_at(replica, step, kind)
    return faults


def test_a_reply_that_is_lost_makes_the_push_come_twice_and_count_once():
    faults = planned([(r, step) for r in range(3) for step in range(1, 6)], "duplicate")
    result = train(faults)
    assert faults.fired["duplicate"] == 15
    assert result.versions == (NUM_MINIBATCHES,) * 2
    assert torch.equal(result.parameters, train().parameters)


@pytest.mark.parametrize("seed", range(10))
def test_killed_replicas_lose_no_sample_and_repeat_none(seed):
    faults = planned([(0, 0), (0, 3), (1, 4), (2, 1), (2, 5)])
    result = train(faults, seed=seed)
    assert faults.fired["kill_replica"] == 5
    assert result.num_counted == 3 * NUM_SAMPLES
    # With n_push = 1 a mini-batch is applied as a whole or not at all.
    assert result.versions == (NUM_MINIBATCHES,) * 2 == (len(set(result.order)),) * 2


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 5])
@pytest.mark.parametrize("killed", [False, True])
def test_each_sample_is_in_the_parameters_exactly_once_an_epoch(num_replicas, killed):
    """Each sample adds 1 to its own element of every shard."""
    config = DownpourConfig(minibatch_size=2, num_epochs=4, rule=SgdConfig(learning_rate=1.0))
    faults = FaultPlan()
    if killed:
        faults.fail_at(0, 2)
    result = train_in_process(
        Counting(2), config, num_replicas=num_replicas, num_shards=2, seed=3, faults=faults
    )
    assert faults.fired["kill_replica"] == killed
    assert result.parameters.eq(4).all()


def test_a_new_life_pushes_under_a_new_incarnation():
    faults = FaultPlan().fail_at(1, 2)
    lives = {(replica, incarnation) for replica, incarnation, _ in train(faults).order}
    assert lives == {(0, 1), (1, 1), (1, 2), (2, 1)}


def test_killing_every_replica_at_once_is_survived():
    faults = planned([(r, step) for r in range(3) for step in range(6)])
    result = train(faults)
    assert faults.fired["kill_replica"] == 18
    assert result.num_counted == 3 * NUM_SAMPLES


def test_a_fault_that_never_came_is_not_counted():
    faults = FaultPlan().fail_at(0, 10_000).fail_at(9, 1, "duplicate")
    train(faults)
    assert not +faults.fired


def test_pushes_that_are_too_stale_are_refused_and_training_goes_on():
    config = DownpourConfig(minibatch_size=8, num_epochs=3, max_staleness=1)
    result = train_in_process(classifier(), config, num_replicas=4, num_shards=2)
    assert set(result.staleness) <= {0, 1}
    assert result.refused["StalePushError"] > 0
    assert sum(result.staleness.values()) + sum(result.refused.values()) == 2 * NUM_MINIBATCHES
    assert result.num_counted == 3 * NUM_SAMPLES


@pytest.mark.parametrize(
    ("factor", "error"), [(math.nan, "NonFinitePushError"), (1e6, "HugePushError")]
)
def test_a_gradient_that_is_no_number_or_huge_is_refused_and_the_others_are_not(factor, error):
    class Poisoned:
        """The classifier, with one bad gradient in ten."""

        def __init__(self) -> None:
            self._problem, self._calls = classifier(), 0

        def __getattr__(self, name):
            return getattr(self._problem, name)

        def gradient_(self, parameters, payload, grad) -> float:
            loss = self._problem.gradient_(parameters, payload, grad)
            self._calls += 1
            if self._calls % 10 == 0:
                grad *= factor
            return loss

    config = DownpourConfig(minibatch_size=8, num_epochs=3, rule=SgdConfig(), max_push_norm=100.0)
    result = train_in_process(Poisoned(), config, num_replicas=2, num_shards=1)
    assert result.parameters.abs().max() < 10
    assert result.refused == {error: NUM_MINIBATCHES // 10}


def poisoned(is_bad) -> TorchProblem:
    """The classifier; a gradient is NaN where the number of its call, from 1, says so."""
    problem, calls = classifier(), itertools.count(1)
    gradient_ = problem.gradient_

    def poison(parameters, payload, grad):
        loss = gradient_(parameters, payload, grad)
        if is_bad(next(calls)):
            grad.fill_(math.nan)
        return loss

    problem.gradient_ = poison
    return problem


def test_a_run_without_any_gradient_of_value_fails_and_says_why():
    with pytest.raises(
        RunFailedError,
        match=r"every replica .* last: replica \d, push 10: \d+ of \d+ gradient values",
    ):
        train_in_process(poisoned(lambda _: True), CONFIG, num_replicas=3, num_shards=2)


def test_a_replica_that_is_of_no_use_is_left_out_and_another_does_its_work():
    """In the warm start, too."""
    config = replace(CONFIG, max_bad_pushes=3, warm_start=WarmStartConfig(steps=20))
    result = train_in_process(
        poisoned(lambda call: call <= 3), config, num_replicas=2, num_shards=1
    )
    assert result.num_counted == 3 * NUM_SAMPLES
    assert result.refused["NonFinitePushError"] == 3
    assert {replica for replica, _, _ in result.order[3:]} == {1 - result.order[0][0]}
