"""Initial weights: their distributions, and that the seed alone decides them."""

import math

import pytest
import torch
from torch import nn

from models.config import Initialisation, ModelConfig
from models.initialisation import initialise_
from models.vgg import Vgg, build_vgg


def demo(initialisation: Initialisation = "glorot", seed: int = 0, **fields: object) -> Vgg:
    config = ModelConfig(
        name="A",
        num_classes=None,
        input_size=64,
        width_factor=0.25,
        head_widths=(256, 128),
        initialisation=initialisation,
        seed=seed,
        **fields,
    )
    return build_vgg(config, 10)


def expected_std(initialisation: Initialisation, weight: torch.Tensor) -> float:
    kernel = math.prod(weight.shape[2:])
    fan_in, fan_out = weight.shape[1] * kernel, weight.shape[0] * kernel
    return {
        "he": math.sqrt(2 / fan_in),
        "glorot": math.sqrt(2 / (fan_in + fan_out)),
        "normal": 0.03,
        "paper": 0.1,
    }[initialisation]


@pytest.mark.parametrize("initialisation", ["he", "glorot", "normal", "paper"])
def test_weights_have_the_standard_deviation_of_their_scheme_and_biases_are_zero(initialisation):
    for parameter in demo(initialisation, init_std=0.03).parameters():
        if parameter.ndim == 1:
            assert not parameter.any()
        elif parameter.numel() > 10_000:
            expected = expected_std(initialisation, parameter)
            assert parameter.std().item() == pytest.approx(expected, rel=0.03)
            assert abs(parameter.mean().item()) < 0.04 * expected


def test_glorot_is_uniform_within_its_bound():
    weight = demo("glorot").classifier[0].weight
    bound = math.sqrt(6 / (512 + 256))
    assert 0.99 * bound < weight.abs().max().item() <= bound


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = demo(seed=5), demo(seed=5), demo(seed=6)
    for name, parameter in first.state_dict().items():
        assert torch.equal(parameter, again.state_dict()[name])
        assert parameter.ndim == 1 or not torch.equal(parameter, other.state_dict()[name])


def test_tensors_are_drawn_in_the_order_of_the_layers():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Linear(4, 5))
    initialise_(model, "normal", 0.01, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    for layer in model:
        drawn = torch.empty_like(layer.weight).normal_(0.0, 0.01, generator=generator)
        assert torch.equal(layer.weight, drawn)


def test_building_a_network_leaves_the_global_random_state_untouched():
    before = torch.get_rng_state()
    demo()
    assert torch.equal(torch.get_rng_state(), before)


def test_the_global_random_state_does_not_reach_the_weights():
    torch.manual_seed(1)
    first = demo()
    torch.manual_seed(2)
    assert torch.equal(first.classifier[0].weight, demo().classifier[0].weight)


def test_the_paper_s_variance_is_not_taken_for_a_standard_deviation():
    assert demo("paper").classifier[0].weight.var().item() == pytest.approx(1e-2, rel=0.02)
