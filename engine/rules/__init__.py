"""Update rules that a parameter shard applies to its slice, element by element.

Each does the arithmetic of torch's own optimiser in the same order, so that one replica with
n_fetch = n_push = 1 follows torch.optim to the last bit. RMSProp's differ where torch's root, which
is that of Intel's vector library, is not the nearest number to the root (1 in 150); ours is.
"""

from engine.config import (
    AdagradConfig,
    AdamWConfig,
    MomentumConfig,
    RmspropConfig,
    RuleConfig,
    SgdConfig,
)
from engine.rules.adagrad import adagrad_rule
from engine.rules.adamw import adamw_rule
from engine.rules.momentum import momentum_rule
from engine.rules.rmsprop import rmsprop_rule
from engine.rules.rule import UpdateRule
from engine.rules.sgd import sgd_rule

__all__ = ["UpdateRule", "make_rule"]


def make_rule(config: RuleConfig) -> UpdateRule:
    """The rule that `config` describes."""
    match config:
        case SgdConfig():
            return sgd_rule(config)
        case MomentumConfig():
            return momentum_rule(config)
        case AdagradConfig():
            return adagrad_rule(config)
        case RmspropConfig():
            return rmsprop_rule(config)
        case AdamWConfig():
            return adamw_rule(config)
