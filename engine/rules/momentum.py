"""SGD with momentum, classical or Nesterov's, as torch.optim.SGD writes it."""

from engine.config import MomentumConfig
from engine.rules.arithmetic import fma
from engine.rules.rule import Dtype, ElementwiseRule


def momentum_rule(config: MomentumConfig) -> ElementwiseRule:
    """The rule that `config` describes."""

    def constants(dtype: Dtype, scale: float, step: int) -> tuple[float, ...]:
        rate = config.learning_rate * scale
        return rate, config.momentum, config.weight_decay, config.nesterov

    return ElementwiseRule(("velocity",), formula, constants)


def formula(
    value: float,
    velocity: float,
    grad: float,
    rate: float,
    momentum: float,
    weight_decay: float,
    nesterov: float,
) -> tuple[float, float]:
    """v' = momentum v + g;  w' = w - rate v', Nesterov's: w' = w - rate (g + momentum v')."""
    if weight_decay:
        grad = fma(weight_decay, value, grad)
    velocity = momentum * velocity + grad
    direction = fma(momentum, velocity, grad) if nesterov else velocity
    return fma(-rate, direction, value), velocity
