"""torch's own optimiser for each of our rules: what the baselines train with."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from engine.config import (
    AdagradConfig,
    AdamWConfig,
    MomentumConfig,
    RmspropConfig,
    RuleConfig,
    SgdConfig,
)
from engine.rules import make_rule
from engine.rules.adagrad import vanishing_epsilon

#: Where torch keeps what our rules call by these names.
_TORCH_NAMES = {
    "momentum": {"velocity": "momentum_buffer"},
    "adagrad": {"squares": "sum"},
    "rmsprop": {"mean_square": "square_avg"},
    "adamw": {"mean": "exp_avg", "mean_square": "exp_avg_sq"},
}


def torch_optimiser(config: RuleConfig, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """torch's own optimiser for the rule that `config` describes, fused where torch can."""
    match config:
        case SgdConfig():
            return torch.optim.SGD(
                parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
            )
        case MomentumConfig():
            return torch.optim.SGD(
                parameters,
                lr=config.learning_rate,
                momentum=config.momentum,
                nesterov=config.nesterov,
                weight_decay=config.weight_decay,
                fused=True,
            )
        case AdagradConfig():
            dtype = np.dtype(torch.finfo(parameters[0].dtype).dtype)
            return torch.optim.Adagrad(
                parameters,
                lr=config.gamma,
                eps=config.epsilon or vanishing_epsilon(dtype),
                weight_decay=config.weight_decay,
                fused=parameters[0].device.type == "cpu",  # torch has it there only
            )
        case RmspropConfig():
            return torch.optim.RMSprop(
                parameters,
                lr=config.learning_rate,
                alpha=config.smoothing,
                eps=config.epsilon,
                weight_decay=config.weight_decay,
            )
        case AdamWConfig():
            return torch.optim.AdamW(
                parameters,
                lr=config.learning_rate,
                betas=(config.beta1, config.beta2),
                eps=config.epsilon,
                weight_decay=config.weight_decay,
                fused=True,
            )


def slots_of(
    optimiser: torch.optim.Optimizer, parameters: Tensor, config: RuleConfig
) -> dict[str, Tensor]:
    """What the optimiser, which has made a step, keeps beside `parameters`, by our names."""
    state = optimiser.state[parameters]
    return {name: state[_TORCH_NAMES[config.name][name]] for name in make_rule(config).slots}


def restore_slots(
    optimiser: torch.optim.Optimizer,
    parameters: Tensor,
    config: RuleConfig,
    slots: Mapping[str, Tensor],
    num_steps: int,
) -> None:
    """Put the optimiser where it was after `num_steps` > 0 steps."""
    state = optimiser.state[parameters]
    for name in make_rule(config).slots:
        state[_TORCH_NAMES[config.name][name]] = slots[name].to(parameters.device)
    if not isinstance(config, SgdConfig | MomentumConfig):
        fused = optimiser.param_groups[0].get("fused")  # such kernels count where they compute
        device = parameters.device if fused else torch.device("cpu")
        state["step"] = torch.tensor(float(num_steps), device=device)
