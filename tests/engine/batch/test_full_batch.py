"""A problem's full batch."""

import pytest
import torch

from engine.batch.config import LbfgsConfig, MultibatchConfig
from engine.batch.full_batch import FullBatch
from engine.batch.minimise import minimise
from engine.batch.program import Span
from tests.engine.problems import NUM_SAMPLES, classifier, data, network


def by_autograd(rows: list[int]) -> tuple[float, torch.Tensor]:
    """Loss and gradient of the classifier over some samples at once."""
    points, classes = data()
    module = network()
    loss = torch.nn.functional.cross_entropy(module(points[rows]), classes[rows])
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in module.parameters()])


@pytest.mark.parametrize("minibatch_size", [7, 1000])
@pytest.mark.parametrize(
    ("span", "rows"),
    [
        (None, list(range(NUM_SAMPLES))),
        (Span(35, 75), list(range(35, 75))),
    ],
)
def test_loss_and_gradient_are_the_means_over_the_span(span, rows, minibatch_size):
    problem = classifier()
    batch = FullBatch(problem, minibatch_size)
    grad = torch.empty(problem.layout.size)
    loss = batch(problem.initial(), grad, span)
    expected, expected_grad = by_autograd(rows)
    assert loss == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-6)
    assert batch(problem.initial(), None, span) == loss


def test_the_loss_alone_takes_no_gradient(monkeypatch):
    problem = classifier()
    grad = torch.empty(problem.layout.size)
    expected = FullBatch(problem, 7)(problem.initial(), grad)
    monkeypatch.delattr(type(problem), "gradient_")
    assert FullBatch(problem, 7)(problem.initial(), None) == expected


def test_a_network_is_trained_by_batches_small_and_large():
    problem = classifier()
    batch = FullBatch(problem, 64)
    for config in (
        LbfgsConfig(max_iterations=60),
        MultibatchConfig(
            num_samples=batch.num_samples, batch_size=40, growth=1.2, max_iterations=60
        ),
    ):
        best = minimise(batch, problem.initial(), config)
        assert problem.validate(problem.initial())["error"] > 0.5
        assert problem.validate(best.point)["error"] < 0.02
