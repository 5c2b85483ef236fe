"""The examples are right about their gradients, and reach what they promise."""

from itertools import product

import pytest
import torch

from engine.batch.config import LbfgsConfig, OwlqnConfig
from engine.batch.full_batch import FullBatch
from engine.batch.minimise import minimise
from engine.config import AdagradConfig, DownpourConfig
from engine.inprocess import train_in_process
from engine.ledger import Lease
from examples.crf import NUM_CLASSES, Crf, reading
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


def test_the_random_field_sums_and_maximises_over_all_labels():
    generator = torch.Generator().manual_seed(0)
    field = Crf(5, chained=True)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    images = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64)
    rows = torch.tensor(list(product(range(NUM_CLASSES), repeat=3)))  # (1000, 3)
    labels = rows[[123, 456]]
    with torch.no_grad():
        emission = field.emission(images)
        scores = sum(emission[:, t, rows[:, t]] for t in range(3))
        scores = scores + sum(field.transition[rows[:, t], rows[:, t + 1]] for t in range(2))
        expected = (scores.logsumexp(1) - scores[[0, 1], [123, 456]]).mean()
        torch.testing.assert_close(field.loss(images, labels), expected)
        assert torch.equal(field.read(images), rows[scores.argmax(1)])


def test_knowing_what_follows_helps_to_read():
    accuracies = []
    for chained in (False, True):
        problem = reading(chained)
        best = minimise(FullBatch(problem, 100), problem.initial(), LbfgsConfig(max_iterations=30))
        accuracies.append(problem.validate(best.point)["accuracy"])
    assert accuracies[1] > accuracies[0] + 0.15
