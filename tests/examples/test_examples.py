"""The examples are right about their gradients, and reach what they promise."""

import pytest
import torch

from engine.batch.config import LbfgsConfig, OwlqnConfig
from engine.batch.full_batch import FullBatch
from engine.batch.minimise import minimise
from engine.config import AdagradConfig, DownpourConfig
from engine.inprocess import train_in_process
from engine.ledger import Lease
from examples.matrix_factorisation import MatrixFactorisation, digits
from examples.sparse_logistic import NUM_TRAIN, tumours


@pytest.fixture(scope="module")
def factorisation() -> MatrixFactorisation:
    return digits()


def test_the_gradient_of_the_factorisation_is_that_of_autograd(factorisation):
    (payload, _), *_ = factorisation.minibatches(Lease(0, 0, 1, 10, 200), 50)
    x = factorisation.initial().requires_grad_()
    error = factorisation._errors(x, payload)
    loss = error.square().mean() / 2 + 4e-5 / 2 * x.square().sum()
    loss.backward()
    grad = torch.empty_like(x)
    found = factorisation.gradient_(x.detach(), payload, grad)
    assert found == pytest.approx(loss.item(), rel=1e-12)
    assert found == factorisation.loss(x.detach(), payload)
    torch.testing.assert_close(grad, x.grad)


def test_every_known_entry_is_read_once_and_no_hidden_one(factorisation):
    seen = torch.zeros(1797, 64, dtype=torch.int64)
    for unit, size in enumerate(factorisation.unit_sizes):
        for payload, num_samples in factorisation.minibatches(Lease(0, 0, unit, 0, size), 999):
            assert len(payload) == num_samples
            seen.index_put_(tuple(payload.T), torch.ones(num_samples, dtype=seen.dtype), True)
    assert torch.equal(seen, factorisation._known.long())


def test_batch_and_downpour_find_hidden_pixels(factorisation):
    baseline = factorisation.validate(torch.zeros_like(factorisation.initial()))["rmse"]
    batch = FullBatch(factorisation, 20_000)
    best = minimise(batch, factorisation.initial(), LbfgsConfig(max_iterations=40))
    config = DownpourConfig(minibatch_size=2000, num_epochs=8, rule=AdagradConfig(gamma=0.1))
    result = train_in_process(factorisation, config, num_replicas=3, num_shards=2)
    assert factorisation.validate(best.point)["rmse"] < 0.8 * baseline
    assert factorisation.validate(result.parameters)["rmse"] < 0.85 * baseline


def test_a_larger_l1_term_leaves_fewer_weights():
    problem = tumours()
    batch = FullBatch(problem, NUM_TRAIN)
    counts = []
    for l1 in (0.3, 0.03, 0.003):
        best = minimise(batch, problem.initial(), OwlqnConfig(l1=l1, gradient_tolerance=1e-5))
        counts.append(int(best.point.count_nonzero()))
    assert counts == [2, 9, 11]
    assert problem.validate(best.point)["accuracy"] > 0.96
