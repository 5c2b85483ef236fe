"""Gradient clipping, by value or by norm, before anybody adds or sends the gradient.

A gradient is spread over the shards, so that no shard knows its norm: the replica clips the whole
gradient of each mini-batch, as a plain torch loop does before each step.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from engine.config import ClipConfig
from engine.device import device_of
from engine.layout import Layout
from engine.ledger import Lease
from engine.problem import Minibatch, Problem

_SAFE = 1e-6  # torch's own guard against a norm of 0


def clip_(grad: Tensor, layout: Layout, config: ClipConfig) -> bool:
    """Clip one whole gradient, shape (P,), in place; True if it was beyond the bound.

    The bits are those of torch.nn.utils.clip_grad_value_ and clip_grad_norm_ on the tensors of
    `layout`. A norm that is not finite makes values NaN, which the shards refuse.
    """
    beyond = False
    if config.max_value is not None:
        low, high = grad.aminmax()
        beyond = max(-float(low), float(high)) > config.max_value
        grad.clamp_(-config.max_value, config.max_value)
    if config.max_norm is not None:
        norms = [torch.linalg.vector_norm(view) for view in layout.views(grad).values()]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        grad.mul_(torch.clamp(config.max_norm / (norm + _SAFE), max=1.0))
        beyond = float(norm) > config.max_norm
    return beyond


def with_clipping(problem: Problem, config: ClipConfig) -> Problem:
    """`problem` with clipped gradients; `problem` itself when nothing is to be clipped."""
    if config.max_value is None and config.max_norm is None:
        return problem
    return ClippedProblem(problem, config)


class ClippedProblem:
    """Another problem's gradients, clipped and counted."""

    def __init__(self, problem: Problem, config: ClipConfig) -> None:
        self._problem = problem
        self._config = config
        self._num_clipped = 0

    @property
    def layout(self) -> Layout:
        return self._problem.layout

    @property
    def device(self) -> torch.device:
        """Where the other problem computes."""
        return device_of(self._problem)

    @property
    def unit_sizes(self) -> Sequence[int]:
        return self._problem.unit_sizes

    def initial(self) -> Tensor:
        return self._problem.initial()

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        return self._problem.minibatches(lease, size)

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor) -> float:
        loss = self._problem.gradient_(parameters, payload, grad)
        self._num_clipped += clip_(grad, self.layout, self._config)
        return loss

    def take_num_clipped(self) -> int:
        """Gradients that were beyond the bound since the last call."""
        count, self._num_clipped = self._num_clipped, 0
        return count

    def loss(self, parameters: Tensor, payload: Any) -> float:
        return self._problem.loss(parameters, payload)

    def validate(self, parameters: Tensor) -> dict[str, float]:
        return self._problem.validate(parameters)
