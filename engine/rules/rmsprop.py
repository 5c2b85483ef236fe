"""RMSProp, as torch.optim.RMSprop writes it (Tieleman & Hinton 2012, lecture 6.5)."""

from math import sqrt

from engine.config import RmspropConfig
from engine.rules.arithmetic import fma
from engine.rules.rule import Dtype, ElementwiseRule


def rmsprop_rule(config: RmspropConfig) -> ElementwiseRule:
    """The rule that `config` describes."""

    def constants(dtype: Dtype, scale: float, step: int) -> tuple[float, ...]:
        rate, smoothing = config.learning_rate * scale, config.smoothing
        return rate, smoothing, 1 - smoothing, config.epsilon, config.weight_decay

    return ElementwiseRule(("mean_square",), formula, constants)


def formula(
    value: float,
    mean_square: float,
    grad: float,
    rate: float,
    smoothing: float,
    share: float,
    epsilon: float,
    weight_decay: float,
) -> tuple[float, float]:
    """m' = smoothing m + share g^2;  w' = w - rate g / (sqrt(m') + epsilon)."""
    if weight_decay:
        grad = fma(weight_decay, value, grad)
    mean_square = fma(share * grad, grad, smoothing * mean_square)
    return value - rate * grad / (sqrt(mean_square) + epsilon), mean_square
