"""A torch module as a problem of flat vectors."""

import weakref

import pytest
import torch
from torch import nn

from engine.ledger import Lease
from engine.torch_problem import TorchProblem
from tests.engine.problems import classifier, data, network


def payload() -> tuple[torch.Tensor, torch.Tensor]:
    points, classes = data()
    return points[:16], classes[:16]


def test_the_initial_vector_holds_the_modules_parameters():
    problem, module = classifier(), network()
    views = problem.layout.views(problem.initial())
    assert list(views) == [name for name, _ in module.named_parameters()]
    assert all(torch.equal(views[name], p) for name, p in module.named_parameters())


def test_the_initial_vector_does_not_change_with_training():
    problem = classifier()
    before = problem.initial()
    problem.initial().fill_(0.0)
    problem.gradient_(torch.ones_like(before), payload(), torch.empty_like(before))
    assert torch.equal(problem.initial(), before)


def test_gradient_and_loss_are_those_of_autograd():
    problem, module = classifier(), network()
    points, classes = payload()
    loss = nn.functional.cross_entropy(module(points), classes)
    loss.backward()
    grad = torch.full((problem.layout.size,), torch.nan)
    assert problem.gradient_(problem.initial(), payload(), grad) == loss.item()
    views = problem.layout.views(grad)
    assert all(torch.equal(views[name], p.grad) for name, p in module.named_parameters())


def test_each_call_sees_the_vector_that_it_is_given():
    problem = classifier()
    vectors = [problem.initial() * factor for factor in (0.0, 1.0, 2.0)]
    grad = torch.empty(problem.layout.size)
    losses = [problem.gradient_(vector, payload(), grad) for vector in vectors]
    vectors[0].copy_(vectors[2])  # the same memory, other contents
    assert problem.gradient_(vectors[0], payload(), grad) == losses[2]
    assert len(set(losses)) == 3


def test_a_parameter_that_the_loss_does_not_reach_has_gradient_zero():
    module = nn.ModuleDict({"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1)})
    problem = TorchProblem(
        module, lambda m, x: m["used"](x).sum(), [1], lambda lease, size: iter(())
    )
    grad = torch.full((problem.layout.size,), torch.nan)
    problem.gradient_(problem.initial(), torch.ones(1, 2), grad)
    assert problem.layout.views(grad)["unused.weight"].tolist() == [[0.0, 0.0]]
    assert problem.layout.views(grad)["used.weight"].tolist() == [[1.0, 1.0]]


def test_dropout_is_on_for_gradients_and_off_for_measures():
    module = nn.Sequential(nn.Linear(1, 1), nn.Dropout(0.5))
    modes: list[bool] = []

    def loss(module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        modes.append(module.training)
        return module(x).sum()

    def measure(module: nn.Module) -> dict[str, float]:
        modes.append(module.training)
        return {"error": 0.5}

    problem = TorchProblem(module, loss, [1], lambda lease, size: iter(()), measure)
    vector = problem.initial()
    problem.gradient_(vector, torch.ones(1, 1), torch.empty_like(vector))
    assert problem.validate(vector) == {"error": 0.5}
    problem.gradient_(vector, torch.ones(1, 1), torch.empty_like(vector))
    assert modes == [True, False, True]


def test_many_vectors_are_not_mixed_up():
    problem, grad = classifier(), torch.empty(83)
    losses = {
        problem.gradient_(problem.initial() * i, payload(), grad)
        for i in range(50)  # far more than it remembers views of
    }
    assert len(losses) == 50


def test_vectors_that_were_measured_are_not_kept():
    problem = classifier()
    arrays = [problem.initial().numpy() for _ in range(5)]
    alive = [weakref.ref(array) for array in arrays]
    while arrays:
        problem.validate(torch.from_numpy(arrays.pop()))
    assert sum(ref() is not None for ref in alive) == 1  # the module computes on the last one


def test_a_lease_gives_its_samples_in_minibatches():
    batches = list(classifier().minibatches(Lease(1, 0, 1, 3, 14), 4))
    assert [batch.num_samples for batch in batches] == [4, 4, 3]
    assert torch.equal(batches[0].payload[0], data()[0][43:47])


def test_frozen_parameters_are_no_part_of_the_vector_and_stay_as_they_are():
    module = network()
    module[0].requires_grad_(False)
    problem, before = classifier(module), module[0].weight.clone()
    assert problem.layout.names == ("2.weight", "2.bias")
    grad = torch.full((problem.layout.size,), torch.nan)
    problem.gradient_(torch.zeros(problem.layout.size), payload(), grad)
    assert grad.isfinite().all()
    assert grad.any()
    assert torch.equal(module[0].weight, before)


@pytest.mark.parametrize(
    "module", [nn.ReLU(), network().requires_grad_(False)], ids=["none", "frozen"]
)
def test_a_module_with_nothing_to_train_is_refused(module):
    with pytest.raises(ValueError, match=r"(ReLU|Sequential) has no parameter that requires a"):
        classifier(module)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda module, payload: 0.5, r"the loss gave 0.5: want .* a scalar tensor"),
        (lambda module, payload: None, r"the loss gave None: want"),
        (lambda module, payload: module(payload[0]).sum(1), r"a tensor of shape \(16,\): want"),
        (lambda module, payload: torch.tensor(1.0), r"the loss depends on no parameter"),
    ],
)
def test_a_loss_that_is_none_is_refused(loss, message):
    problem = TorchProblem(network(), loss, (16,), lambda lease, size: iter(()))
    grad = torch.empty(problem.layout.size)
    with pytest.raises(ValueError, match=message):
        problem.gradient_(problem.initial(), payload(), grad)
