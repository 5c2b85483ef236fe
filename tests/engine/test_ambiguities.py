"""What the paper leaves open (docs/decisions.md has the table), where no other test shows it."""

import torch

from engine.config import AdagradConfig, DownpourConfig, SgdConfig
from engine.inprocess import train_in_process
from tests.engine.problems import classifier, in_order
from tests.engine.shards import new_shard, push, vector


def test_each_slice_has_a_version_of_its_own_and_is_stale_by_its_own_count():
    first, second = new_shard(), new_shard()
    for sequence in (1, 2, 3):
        first.push(push(sequence), vector(10, sequence))
    second.push(push(1), vector(10, 1))
    versions = [shard.fetch(torch.empty(10)) for shard in (first, second)]
    assert versions == [3, 1]  # a vector fetched from both is of mixed age
    late = [s.push(push(9, fetched=0), vector(10, 9)).staleness for s in (first, second)]
    assert late == [3, 1]


def test_the_replicas_own_step_is_plain_descent_whatever_the_rule_of_the_shard():
    settings = {"minibatch_size": 8, "num_epochs": 1, "n_fetch": 1000, "n_push": 1000}

    def seen(alpha: float) -> list[torch.Tensor]:
        """The parameters at which one replica computes, which never fetches a second time."""
        problem, points = classifier(), []
        plain = problem.gradient_

        def gradient_(parameters, payload, grad):
            points.append(parameters.clone())
            return plain(parameters, payload, grad)

        problem.gradient_ = gradient_
        config = DownpourConfig(**settings, alpha=alpha, rule=AdagradConfig())
        train_in_process(problem, config, num_replicas=1, num_shards=2)
        return points

    problem, grad = classifier(), torch.empty(83)
    expected = problem.initial()
    config = DownpourConfig(**settings)
    for point, minibatch in zip(seen(0.25), in_order(problem, config), strict=True):
        assert torch.equal(point, expected)
        problem.gradient_(expected, minibatch.payload, grad)
        expected.add_(grad, alpha=-0.25)
    assert all(torch.equal(point, problem.initial()) for point in seen(0.0))


def test_the_accrued_gradient_is_a_sum_so_a_push_of_n_is_n_steps_long():
    def moved(n_push: int) -> torch.Tensor:
        problem = classifier()
        plain, calls = problem.gradient_, []

        def gradient_(parameters, payload, grad):
            plain(problem.initial(), payload, grad)  # the same gradient wherever we are
            calls.append(1)
            return 0.0

        problem.gradient_ = gradient_
        rule = SgdConfig(learning_rate=0.01)
        config = DownpourConfig(minibatch_size=8, num_epochs=1, n_push=n_push, rule=rule)
        run = train_in_process(problem, config, num_replicas=1, num_shards=1)
        assert len(calls) == 16
        assert run.versions == (1 + -(-15 // n_push),)  # the first push carries one
        return run.parameters - problem.initial()

    torch.testing.assert_close(moved(5), moved(1), rtol=1e-4, atol=1e-6)
