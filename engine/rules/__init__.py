"""Update rules that a parameter shard applies to its slice, element by element.

Each does the arithmetic of torch's own optimiser in the same order, so that one replica with
n_fetch = n_push = 1 follows torch.optim to the last bit.
"""

from engine.config import (
    AdagradConfig,
    AdamWConfig,
    MomentumConfig,
    RmspropConfig,
    RuleConfig,
    SgdConfig,
)
from engine.rules.adagrad import Adagrad
from engine.rules.adamw import AdamW
from engine.rules.momentum import Momentum
from engine.rules.rmsprop import Rmsprop
from engine.rules.rule import UpdateRule
from engine.rules.sgd import Sgd

__all__ = ["UpdateRule", "make_rule"]


def make_rule(config: RuleConfig) -> UpdateRule:
    """The rule that `config` describes."""
    match config:
        case SgdConfig():
            return Sgd(config)
        case MomentumConfig():
            return Momentum(config)
        case AdagradConfig():
            return Adagrad(config)
        case RmspropConfig():
            return Rmsprop(config)
        case AdamWConfig():
            return AdamW(config)
