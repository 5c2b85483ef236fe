"""The paper's rule on the shard: Adagrad (Dean et al. 2012, section 4.1)."""

import math
from math import sqrt

import numpy as np

from engine.config import AdagradConfig
from engine.rules.arithmetic import fma
from engine.rules.rule import Dtype, ElementwiseRule


def adagrad_rule(config: AdagradConfig) -> ElementwiseRule:
    """The rule that `config` describes."""

    def constants(dtype: Dtype, scale: float, step: int) -> tuple[float, ...]:
        epsilon = config.epsilon or vanishing_epsilon(dtype)
        return config.gamma * scale, epsilon, config.weight_decay

    return ElementwiseRule(("squares",), formula, constants)


def formula(
    value: float, squares: float, grad: float, gamma: float, epsilon: float, weight_decay: float
) -> tuple[float, float]:
    """eta(i, K) = gamma / sqrt(sum over j <= K of dw(i, j)^2)."""
    if weight_decay:
        grad = fma(weight_decay, value, grad)
    squares = fma(grad, grad, squares)
    return value - gamma * grad / (sqrt(squares) + epsilon), squares


def vanishing_epsilon(dtype: Dtype) -> float:
    """What is added to the root in place of the paper's nothing: the root of the least number.

    It makes 0/0 no step. It is lost in rounding, so every bit is that of the paper's rule, once a
    parameter's root of summed squares is 1e-15 (float32; 1e-145 in float64). And it bounds the
    step by gamma where the square of a gradient underflows to 0, as the paper's rule has it:
    dividing that gradient by 0, or by the least normal number, would destroy the parameter.
    """
    return math.sqrt(np.finfo(dtype).smallest_subnormal)
