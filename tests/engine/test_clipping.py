"""Clipping against torch's own, and what it leaves to the shards."""

import pytest
import torch
from pydantic import ValidationError

from engine.clipping import clip_, with_clipping
from engine.config import ClipConfig, DownpourConfig
from engine.inprocess import train_in_process
from engine.layout import Layout
from tests.engine.problems import classifier
from tests.engine.shards import vector

LAYOUT = Layout(("a", "b", "c"), ((30, 7), (30,), (5, 5)))


def tensors(grad: torch.Tensor) -> list[torch.Tensor]:
    """Parameters that hold copies of the gradient's parts."""
    parameters = [torch.zeros_like(view) for view in LAYOUT.views(grad).values()]
    for parameter, view in zip(parameters, LAYOUT.views(grad).values(), strict=True):
        parameter.grad = view.clone()
    return parameters


def flat(parameters: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in parameters])


@pytest.mark.parametrize("bound", [1e-3, 1.0, 15.0, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_the_bits_are_those_of_torch(bound, seed):
    grad = vector(LAYOUT.size, seed)
    by_norm, by_value = grad.clone(), grad.clone()
    clip_(by_norm, LAYOUT, ClipConfig(max_norm=bound))
    clip_(by_value, LAYOUT, ClipConfig(max_value=bound))
    parameters = tensors(grad)
    torch.nn.utils.clip_grad_norm_(parameters, bound)
    assert torch.equal(by_norm, flat(parameters))
    parameters = tensors(grad)
    torch.nn.utils.clip_grad_value_(parameters, bound)
    assert torch.equal(by_value, flat(parameters))


def test_the_norm_is_that_of_the_whole_gradient_however_many_shards_share_it():
    settings = {"minibatch_size": 8, "num_epochs": 2, "clip": {"max_norm": 0.1}}
    runs = [
        train_in_process(classifier(), DownpourConfig(**settings), num_replicas=2, num_shards=n)
        for n in (1, 2, 5)
    ]
    assert all(torch.equal(runs[0].parameters, run.parameters) for run in runs)


def test_without_a_bound_the_problem_is_left_alone():
    problem = classifier()
    assert with_clipping(problem, ClipConfig()) is problem


@pytest.mark.parametrize("bound", [{"max_norm": 1.0}, {"max_value": 1.0}])
def test_a_gradient_that_is_not_a_number_stays_so_for_the_shards_to_refuse(bound):
    grad = vector(LAYOUT.size, 0)
    grad[17] = float("nan")
    clip_(grad, LAYOUT, ClipConfig(**bound))
    assert grad.isnan().any()


@pytest.mark.parametrize("bad", [{"max_norm": 0.0}, {"max_value": -1.0}])
def test_a_bound_is_above_0(bad):
    with pytest.raises(ValidationError, match="greater than 0"):
        ClipConfig(**bad)


def test_both_bounds_at_once_are_refused():
    with pytest.raises(ValidationError, match="by value or by norm, not both"):
        ClipConfig(max_norm=1.0, max_value=1.0)
