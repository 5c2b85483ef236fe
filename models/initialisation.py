"""Random initial weights by name, drawn from a generator that the caller passes."""

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Generator, Tensor, nn

from models.config import Initialisation

PAPER_VARIANCE: Final = 1e-2  # Simonyan & Zisserman 2015, 3.1: a variance, so the std is 0.1

Draw = Callable[[Tensor, Generator], Tensor]


def initialise_(
    model: nn.Module, scheme: Initialisation, init_std: float, generator: Generator
) -> None:
    """Fill every parameter of a network in place; biases become 0.

    Weights are drawn one tensor after another in the order of `model.parameters()`: for a VGG its
    convolutions from the image upwards, then FC6, FC7, FC8. The generator alone decides the values.

    Args:
        model: weights have two or more dimensions, (out, in, ...); biases have one.
        scheme: "he", normal with variance 2 / fan_in (He et al. 2015, equation 10);
            "glorot", uniform with variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010,
            equation 16); "normal", with standard deviation `init_std`; "paper", normal with
            variance 1e-2 as Simonyan & Zisserman 2015 print it.
        init_std: read by "normal" only.
    """
    draw = _draws(init_std)[scheme]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.zero_()
            else:
                draw(parameter, generator)


def _draws(init_std: float) -> dict[Initialisation, Draw]:
    return {
        "he": _he_,
        "glorot": _glorot_,
        "normal": lambda weight, generator: weight.normal_(0.0, init_std, generator=generator),
        "paper": lambda weight, generator: weight.normal_(
            0.0, math.sqrt(PAPER_VARIANCE), generator=generator
        ),
    }


def _he_(weight: Tensor, generator: Generator) -> Tensor:
    fan_in, _ = _fans(weight)
    return weight.normal_(0.0, math.sqrt(2.0 / fan_in), generator=generator)


def _glorot_(weight: Tensor, generator: Generator) -> Tensor:
    bound = math.sqrt(6.0 / sum(_fans(weight)))
    return weight.uniform_(-bound, bound, generator=generator)


def _fans(weight: Tensor) -> tuple[int, int]:
    """Connections into and out of one unit of a weight (out, in, kernel...)."""
    kernel = weight[0, 0].numel()
    return weight.shape[1] * kernel, weight.shape[0] * kernel
