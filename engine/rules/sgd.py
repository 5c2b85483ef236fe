"""Plain stochastic gradient descent."""

from engine.config import SgdConfig
from engine.rules.arithmetic import fma
from engine.rules.rule import Dtype, ElementwiseRule


def sgd_rule(config: SgdConfig) -> ElementwiseRule:
    """The rule that `config` describes."""

    def constants(dtype: Dtype, scale: float, step: int) -> tuple[float, ...]:
        return config.learning_rate * scale, config.weight_decay

    return ElementwiseRule((), formula, constants)


def formula(value: float, grad: float, rate: float, weight_decay: float) -> tuple[float]:
    """w' = w - rate (g + decay w)."""
    if weight_decay:
        grad = fma(weight_decay, value, grad)
    return (fma(-rate, grad, value),)
