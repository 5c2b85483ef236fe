"""Update rules that a parameter shard applies to its slice, element by element.

Each is written with the operations of torch's own optimiser in the same order, so that one
replica with n_fetch = n_push = 1 follows torch.optim to the last bit.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from engine.config import AdagradConfig, MomentumConfig, RuleConfig, SgdConfig


class UpdateRule(Protocol):
    """How a gradient changes parameters. Elementwise: any block may be updated on its own."""

    #: Names of the state vectors ("slots") that it keeps beside the parameters, all starting at 0.
    slots: tuple[str, ...]

    def apply_(
        self, values: Tensor, slots: Sequence[Tensor], grad: Tensor, scratch: Tensor, scale: float
    ) -> None:
        """Update `values` and `slots` in place; `grad` is only read. All are (block,).

        Args:
            scratch: memory of the same shape, overwritten.
            scale: factor on the configured rate, from the learning-rate schedule.
        """
        ...


class Sgd:
    slots: tuple[str, ...] = ()

    def __init__(self, config: SgdConfig) -> None:
        self._config = config

    def apply_(
        self, values: Tensor, slots: Sequence[Tensor], grad: Tensor, scratch: Tensor, scale: float
    ) -> None:
        grad = _decayed(grad, values, self._config.weight_decay, scratch)
        values.add_(grad, alpha=-self._config.learning_rate * scale)


class Momentum:
    slots: tuple[str, ...] = ("velocity",)

    def __init__(self, config: MomentumConfig) -> None:
        self._config = config

    def apply_(
        self, values: Tensor, slots: Sequence[Tensor], grad: Tensor, scratch: Tensor, scale: float
    ) -> None:
        (velocity,) = slots
        grad = _decayed(grad, values, self._config.weight_decay, scratch)
        velocity.mul_(self._config.momentum).add_(grad)
        values.add_(velocity, alpha=-self._config.learning_rate * scale)


class Adagrad:
    """eta(i, K) = gamma / sqrt(sum over j <= K of dw(i, j)^2), Dean et al. 2012, section 4.1."""

    slots: tuple[str, ...] = ("squares",)

    def __init__(self, config: AdagradConfig) -> None:
        self._config = config

    def apply_(
        self, values: Tensor, slots: Sequence[Tensor], grad: Tensor, scratch: Tensor, scale: float
    ) -> None:
        (squares,) = slots
        if self._config.weight_decay:
            grad = grad.add(values, alpha=self._config.weight_decay)
        squares.addcmul_(grad, grad, value=1)
        torch.sqrt(squares, out=scratch)
        if self._config.epsilon:
            scratch.add_(self._config.epsilon)
        else:
            # The paper has no epsilon: a parameter whose gradients were all zero gives 0/0,
            # which is no step at all.
            scratch.masked_fill_(scratch == 0, 1.0)
        values.addcdiv_(grad, scratch, value=-self._config.gamma * scale)


def _decayed(grad: Tensor, values: Tensor, weight_decay: float, scratch: Tensor) -> Tensor:
    if not weight_decay:
        return grad
    return torch.add(grad, values, alpha=weight_decay, out=scratch)


def make_rule(config: RuleConfig) -> UpdateRule:
    """The rule that `config` describes."""
    match config:
        case SgdConfig():
            return Sgd(config)
        case MomentumConfig():
            return Momentum(config)
        case AdagradConfig():
            return Adagrad(config)
