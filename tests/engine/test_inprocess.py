"""Downpour with every role in one thread: what it computes, and that seeds decide it."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as property_settings
from hypothesis import strategies as st
from torch import Tensor, nn, optim

from engine.config import (
    AdagradConfig,
    AdamWConfig,
    DownpourConfig,
    MomentumConfig,
    RmspropConfig,
    SgdConfig,
)
from engine.faults import FaultPlan
from engine.inprocess import InProcessResult, train_in_process
from engine.problem import Problem
from tests.engine.problems import (
    NUM_SAMPLES,
    RULES,
    UNIT_SIZES,
    classifier,
    in_order,
    in_whole_registers,
    network,
    use_nearest_roots,
)


def config(**changed) -> DownpourConfig:
    return DownpourConfig(**{"minibatch_size": 8, "num_epochs": 3, **changed})


def num_minibatches(config: DownpourConfig) -> int:
    per_epoch = sum(-(-size // config.minibatch_size) for size in UNIT_SIZES)
    return per_epoch * config.num_epochs


def by_plain_torch(config: DownpourConfig, module: nn.Module, optimiser_class, **options) -> Tensor:
    """The usual loop, with parameters as tensors of their own and torch's own optimiser."""
    optimiser = optimiser_class(module.parameters(), **options)
    for minibatch in in_order(classifier(), config):
        points, classes = minibatch.payload
        optimiser.zero_grad()
        nn.functional.cross_entropy(module(points), classes).backward()
        if config.clip.max_norm is not None:
            nn.utils.clip_grad_norm_(module.parameters(), config.clip.max_norm)
        if config.clip.max_value is not None:
            nn.utils.clip_grad_value_(module.parameters(), config.clip.max_value)
        optimiser.step()
    return torch.cat([p.detach().flatten() for p in module.parameters()])


MOMENTUM = {"learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
SGD = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
FUSED = {"fused": True}
ADAMW = {"lr": 0.01, "weight_decay": 0.1}
CASES = [
    (SgdConfig(learning_rate=0.1), optim.SGD, {"lr": 0.1}),
    (SgdConfig(learning_rate=0.1, weight_decay=0.01), optim.SGD, {"lr": 0.1, "weight_decay": 0.01}),
    (MomentumConfig(**MOMENTUM), optim.SGD, SGD),
    (MomentumConfig(**MOMENTUM), optim.SGD, SGD | FUSED),
    (MomentumConfig(**MOMENTUM, nesterov=True), optim.SGD, SGD | {"nesterov": True}),
    (MomentumConfig(**MOMENTUM, nesterov=True), optim.SGD, SGD | {"nesterov": True} | FUSED),
    (AdagradConfig(gamma=0.1, epsilon=1e-10), optim.Adagrad, {"lr": 0.1, "eps": 1e-10} | FUSED),
    (RmspropConfig(learning_rate=0.01), optim.RMSprop, {"lr": 0.01}),
    (AdamWConfig(learning_rate=0.01, weight_decay=0.1), optim.AdamW, ADAMW | FUSED),
]


@pytest.mark.parametrize(("rule", "optimiser", "options"), CASES)
@pytest.mark.parametrize("num_shards", [1, 2])
def test_one_replica_follows_plain_torch_to_the_last_bit(
    monkeypatch, rule, optimiser, options, num_shards
):
    use_nearest_roots(monkeypatch)
    settings, module = config(rule=rule), in_whole_registers()
    problem = classifier(in_whole_registers())
    result = train_in_process(problem, settings, num_replicas=1, num_shards=num_shards)
    assert torch.equal(result.parameters, by_plain_torch(settings, module, optimiser, **options))
    assert set(result.staleness) == {0}


def test_one_replica_follows_torch_without_fused_kernels_but_for_rounding():
    for rule, optimiser, options in CASES[-3::2]:
        settings = config(rule=rule, num_epochs=1)
        found = train_in_process(classifier(), settings, num_replicas=1, num_shards=2).parameters
        expected = by_plain_torch(settings, network(), optimiser, **options | {"fused": False})
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("clip", [{"max_norm": 0.2}, {"max_value": 0.02}])
def test_one_replica_clips_as_plain_torch_does_to_the_last_bit(clip):
    rule = SgdConfig(learning_rate=0.1)
    settings, free = config(rule=rule, clip=clip), config(rule=rule)
    result = train_in_process(classifier(), settings, num_replicas=1, num_shards=3)
    expected = by_plain_torch(settings, network(), optim.SGD, lr=0.1)
    assert torch.equal(result.parameters, expected)
    assert not torch.equal(by_plain_torch(free, network(), optim.SGD, lr=0.1), expected)


@given(
    rule=st.sampled_from(RULES),
    num_shards=st.integers(2, 6),
    num_replicas=st.integers(1, 4),
    steps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 1000),
)
@property_settings(max_examples=40)
def test_the_number_of_shards_changes_no_bit(rule, num_shards, num_replicas, steps, seed):
    n_fetch, n_push = steps
    fixed = config(rule=rule, n_fetch=n_fetch, n_push=n_push, num_epochs=2)

    def trained(shards: int) -> InProcessResult:
        return train_in_process(
            classifier(), fixed, num_replicas=num_replicas, num_shards=shards, seed=seed
        )

    whole, cut = trained(1), trained(num_shards)
    assert whole.order == cut.order
    assert torch.equal(whole.parameters, cut.parameters)


def test_a_seed_decides_the_order_and_with_it_every_bit():
    def run(seed: int):
        return train_in_process(classifier(), config(), num_replicas=3, num_shards=2, seed=seed)

    one, again, other = run(1), run(1), run(2)
    assert one.order == again.order
    assert torch.equal(one.parameters, again.parameters)
    assert one.order != other.order
    assert not torch.equal(one.parameters, other.parameters)


@pytest.mark.parametrize("num_replicas", [1, 2, 5])
def test_each_minibatch_is_one_update_of_every_shard(num_replicas):
    result = train_in_process(classifier(), config(), num_replicas=num_replicas, num_shards=3)
    assert result.versions == (num_minibatches(config()),) * 3
    assert len(set(result.order)) == len(result.order) == num_minibatches(config())
    assert result.num_counted == 3 * NUM_SAMPLES


def test_staleness_is_what_the_others_pushed_in_between():
    result = train_in_process(classifier(), config(), num_replicas=4, num_shards=1)
    total = sum(staleness * pushes for staleness, pushes in result.staleness.items())
    assert sum(result.staleness.values()) == num_minibatches(config())
    assert 1.0 < total / sum(result.staleness.values()) < 4.0  # R - 1 for equal replicas


class Recording:
    """The classifier, with every gradient added up on the side."""

    def __init__(self) -> None:
        self._problem = classifier()
        self.layout, self.unit_sizes = self._problem.layout, self._problem.unit_sizes
        self.initial, self.minibatches = self._problem.initial, self._problem.minibatches
        self.validate = self._problem.validate
        self.sum = torch.zeros(self.layout.size, dtype=torch.float64)

    def gradient_(self, parameters, payload, grad) -> float:
        loss = self._problem.gradient_(parameters, payload, grad)
        self.sum += grad
        return loss


@pytest.mark.parametrize(("n_push", "num_replicas"), [(1, 1), (4, 1), (4, 3), (7, 2), (100, 3)])
def test_what_is_pushed_adds_up_to_what_was_computed(n_push, num_replicas):
    problem: Problem = Recording()
    settings = config(n_push=n_push, n_fetch=2, rule=SgdConfig(learning_rate=1.0))
    start = problem.initial()
    # With w -= g the parameters hold the sum of all that was pushed.
    result = train_in_process(problem, settings, num_replicas=num_replicas, num_shards=2)
    pushed = start.double() - result.parameters.double()
    torch.testing.assert_close(pushed, problem.sum, rtol=1e-4, atol=1e-4)
    assert result.num_counted == 3 * NUM_SAMPLES
    assert len(result.order) < num_minibatches(settings) or n_push == 1


def test_the_local_step_is_used_until_the_next_fetch():
    """One replica that fetches rarely and steps alone walks like one that fetches each time."""
    plain = config(rule=SgdConfig(learning_rate=0.1))
    lonely = config(rule=SgdConfig(learning_rate=0.1), n_fetch=1000, alpha=0.1)
    lazy = config(rule=SgdConfig(learning_rate=0.1), n_fetch=1000)
    results = [
        train_in_process(classifier(), settings, num_replicas=1, num_shards=1).parameters
        for settings in (plain, lonely, lazy)
    ]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-5)
    assert (results[0] - results[2]).abs().max() > 0.1


def test_the_schedule_reaches_the_shards():
    drops = {"drop_at": (0.5,), "drop_by": (1e9,)}
    half = train_in_process(
        classifier(), config(num_epochs=2, schedule=drops), num_replicas=1, num_shards=1
    )
    whole = train_in_process(classifier(), config(num_epochs=1), num_replicas=1, num_shards=1)
    torch.testing.assert_close(half.parameters, whole.parameters, rtol=0, atol=1e-5)


def test_training_lowers_the_error():
    problem = classifier()
    before = problem.validate(problem.initial())["error"]
    settings = config(num_epochs=20, rule=AdagradConfig(gamma=0.1))
    result = train_in_process(problem, settings, num_replicas=4, num_shards=2)
    assert before > 0.5
    assert problem.validate(result.parameters)["error"] < 0.1


def test_in_the_warm_start_one_replica_works_alone_for_so_many_steps():
    settings = config(num_epochs=3, warm_start={"steps": 20})
    result = train_in_process(classifier(), settings, num_replicas=4, num_shards=2)
    first = result.order[:20]
    assert len({replica for replica, _, _ in first}) == 1
    assert len({replica for replica, _, _ in result.order[20:]}) > 1
    assert result.num_counted == 3 * NUM_SAMPLES


def test_a_replica_that_is_killed_in_the_warm_start_goes_on_alone():
    settings = config(num_epochs=3, warm_start={"steps": 20})
    first = train_in_process(classifier(), settings, num_replicas=3, num_shards=1).order[0][0]
    faults = FaultPlan().fail_at(first, 5)
    result = train_in_process(classifier(), settings, num_replicas=3, num_shards=1, faults=faults)
    assert faults.fired["kill_replica"] == 1
    assert {replica for replica, _, _ in result.order[:20]} == {first}
    assert result.num_counted == 3 * NUM_SAMPLES


@pytest.mark.parametrize("bound", [{"seconds": 3.0}, {"metric": "error", "at_most": 0.1}])
def test_a_warm_start_that_needs_a_clock_or_a_validation_is_refused(bound):
    with pytest.raises(ValueError, match=r"no clock and validates nothing; give warm_start.steps"):
        train_in_process(classifier(), config(warm_start=bound), num_replicas=1, num_shards=1)


@pytest.mark.parametrize("num_replicas", [0, -1])
def test_a_run_without_replicas_is_refused(num_replicas):
    with pytest.raises(ValueError, match=rf"num_replicas={num_replicas}: want one or more"):
        train_in_process(classifier(), DownpourConfig(), num_replicas=num_replicas, num_shards=1)


def test_a_run_without_samples_is_refused():
    problem = classifier()
    problem.unit_sizes = (0, 0)
    with pytest.raises(
        ValueError, match=r"unit_sizes=\(0, 0\): the problem has no training sample"
    ):
        train_in_process(problem, DownpourConfig(), num_replicas=1, num_shards=1)
