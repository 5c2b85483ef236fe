"""A `Problem` as a function of its parameters: mean loss and gradient over many mini-batches."""

from collections.abc import Iterator
from itertools import accumulate

import torch
from torch import Tensor

from engine.batch.program import Span
from engine.ledger import Lease
from engine.problem import Minibatch, Problem


class FullBatch:
    """An `engine.batch.minimise.Objective` that reads the data mini-batch by mini-batch.

    It reads epoch 0 every time: all evaluations are of one function.
    """

    def __init__(self, problem: Problem, minibatch_size: int) -> None:
        """Evaluate `problem` in mini-batches of `minibatch_size` samples."""
        self._problem, self._minibatch_size = problem, minibatch_size
        self._firsts = [0, *accumulate(problem.unit_sizes)]

    @property
    def num_samples(self) -> int:
        """Samples in the full batch."""
        return self._firsts[-1]

    def __call__(self, point: Tensor, grad: Tensor | None, samples: Span | None = None) -> float:
        """The mean loss at `point` (P,); overwrites `grad` (P,), if given."""
        if grad is None:  # half the work or less: nothing is propagated back
            return self._loss(point, samples)
        part = torch.empty_like(point)
        total = torch.zeros_like(point, dtype=torch.float64)
        loss, num_seen = 0.0, 0
        for payload, num_samples in self._minibatches(samples):
            loss += self._problem.gradient_(point, payload, part) * num_samples
            num_seen += num_samples
            total.add_(part, alpha=num_samples)
        grad.copy_(total.div_(num_seen))
        return loss / num_seen

    def _loss(self, point: Tensor, samples: Span | None) -> float:
        loss, num_seen = 0.0, 0
        for payload, num_samples in self._minibatches(samples):
            loss += self._problem.loss(point, payload) * num_samples
            num_seen += num_samples
        return loss / num_seen

    def _minibatches(self, samples: Span | None) -> Iterator[Minibatch]:
        span = samples or Span(0, self.num_samples)
        for unit, first in enumerate(self._firsts[:-1]):
            start = max(span.start - first, 0)
            stop = min(span.stop - first, self._problem.unit_sizes[unit])
            if start < stop:
                lease = Lease(0, 0, unit, start, stop)
                yield from self._problem.minibatches(lease, self._minibatch_size)
