"""The mean gradient of a step over all ranks, in torch's own ways."""

from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from engine.problem import Problem
from engine.torch_problem import TorchProblem


class Averager(Protocol):
    """Computes with everybody else; each rank must call it once a step."""

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor, weight: float) -> float:
        """Overwrite `grad` (P,) with the sum over ranks of weight times own gradient.

        Args:
            weight: this rank's fraction of the step's samples, in [0, 1].

        Returns:
            The mean loss over the own mini-batch.

        Raises:
            RuntimeError: another rank is gone.
        """
        ...


def averager(problem: Problem) -> Averager:
    """By DistributedDataParallel where there is a torch module, by one all-reduce otherwise."""
    if isinstance(problem, TorchProblem):
        return _DdpAverager(problem)
    return _FlatAverager(problem)


class _DdpAverager:
    """Buckets are summed while the backward pass goes on."""

    def __init__(self, problem: TorchProblem) -> None:
        self._problem = problem
        self._weight = 1.0
        self._views: dict[str, Tensor] = {}
        self._grad = torch.empty(0)
        problem.call_through(self._wrapped)

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor, weight: float) -> float:
        self._weight = weight
        loss = self._problem.gradient_(parameters, payload, grad)
        if grad is not self._grad:
            self._grad, self._views = grad, self._problem.layout.views(grad)
        for name, parameter in self._module.named_parameters():
            # The problem may have taken the gradient before the other ranks' was added.
            assert parameter.grad is not None
            self._views[name].copy_(parameter.grad)
        return loss

    def _wrapped(self, module: nn.Module) -> nn.Module:
        self._module = module
        ddp = DistributedDataParallel(module, gradient_as_bucket_view=True)
        # DDP divides by the number of ranks; the last mini-batches may differ in size.
        ddp.register_comm_hook(None, self._weighted_sum)
        return ddp

    def _weighted_sum(
        self,
        state: object,
        bucket: dist.GradBucket,  # type: ignore[name-defined]  # torch has it, its stubs do not
    ) -> torch.futures.Future[Tensor]:
        work = dist.all_reduce(bucket.buffer().mul_(self._weight), async_op=True)
        done: torch.futures.Future[list[Tensor]] = work.get_future()
        return done.then(lambda future: future.value()[0])


class _FlatAverager:
    """One all-reduce of the whole vector after the gradient is known."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor, weight: float) -> float:
        loss = self._problem.gradient_(parameters, payload, grad)
        dist.all_reduce(grad.mul_(weight))
        return loss
