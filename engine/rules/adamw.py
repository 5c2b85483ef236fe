"""Adam with decoupled weight decay (Loshchilov & Hutter 2019), as torch.optim.AdamW writes it."""

import math
from math import sqrt

from engine.config import AdamWConfig
from engine.rules.arithmetic import fma
from engine.rules.rule import Dtype, ElementwiseRule


def adamw_rule(config: AdamWConfig) -> ElementwiseRule:
    """The rule that `config` describes.

    The bias correction goes by the updates of the shard, whichever replicas they came from. They
    are the shard's version, so nothing more has to survive a kill.
    """

    def constants(dtype: Dtype, scale: float, step: int) -> tuple[float, ...]:
        rate, beta1, beta2 = config.learning_rate * scale, config.beta1, config.beta2
        return (
            1 - rate * config.weight_decay,
            1 - beta1,
            (1 - beta1) - 1,
            1 - beta1 < 0.5,
            beta2,
            1 - beta2,
            rate / (1 - beta1**step),
            math.sqrt(1 - beta2**step),
            config.epsilon,
        )

    return ElementwiseRule(("mean", "mean_square"), formula, constants)


def formula(
    value: float,
    mean: float,
    mean_square: float,
    grad: float,
    kept: float,
    share1: float,
    other1: float,
    from_mean: float,
    beta2: float,
    share2: float,
    rate: float,
    correction: float,
    epsilon: float,
) -> tuple[float, float, float]:
    """m' = m + (1 - beta1) (g - m);  v' = beta2 v + (1 - beta2) g^2;
    w' = w (1 - rate decay) - rate' m' / (sqrt(v' / (1 - beta2^t)) + epsilon).

    The mean starts from whichever of m and g it is nearer to, as torch's does.
    """
    away = grad - mean
    mean = fma(share1, away, mean) if from_mean else fma(other1, away, grad)
    mean_square = fma(share2 * grad, grad, beta2 * mean_square)
    root = sqrt(mean_square) / correction + epsilon
    return value * kept - rate * mean / root, mean, mean_square
