"""L-BFGS as others run it on the digits: torch's on all cores, scipy's over Dask's workers."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from distributed import Client, Future
from torch import Tensor

from benchmarks._batch_subjects import demo_net, digits, digits_problem
from benchmarks._subject import mean_loss
from engine.torch_problem import TorchProblem


class Trace(NamedTuple):
    """What an optimisation took: the loss of each iterate, or of each trial point, and when.

    Time starts when the initial point has been evaluated: everybody is ready then.
    """

    seconds: list[float]
    losses: list[float]
    num_evaluations: int

    def time_to(self, loss: float) -> float:
        """Seconds until the loss was first so low; infinity if it never was."""
        reached = zip(self.seconds, self.losses, strict=True)
        return next((s for s, value in reached if value <= loss), float("inf"))


def torch_lbfgs(minibatch_size: int, num_iterations: int, history_length: int) -> Trace:
    """torch.optim.LBFGS with strong_wolfe in this process, gradients on every core."""
    images, classes = digits()
    net = demo_net().train()
    optimiser = torch.optim.LBFGS(
        net.parameters(),
        max_iter=num_iterations,
        max_eval=10_000,
        history_size=history_length,
        line_search_fn="strong_wolfe",
        tolerance_grad=0.0,
        tolerance_change=0.0,
    )
    num_evaluations, began = 0, 0.0
    seconds: list[float] = []
    losses: list[float] = []

    def closure() -> float:
        nonlocal num_evaluations, began
        num_evaluations += 1
        optimiser.zero_grad()
        total = 0.0
        for start in range(0, len(images), minibatch_size):
            part = slice(start, start + minibatch_size)
            loss = mean_loss(net, (images[part], classes[part]))
            loss = loss * (len(images[part]) / len(images))
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        if num_evaluations == 1:
            began = time.monotonic()
        seconds.append(time.monotonic() - began)
        losses.append(total)
        return total

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return Trace(seconds, losses, num_evaluations)


def scipy_lbfgs(
    client: Client,
    workers: Sequence[str],
    minibatch_size: int,
    num_iterations: int,
    history_length: int,
) -> Trace:
    """scipy's L-BFGS-B; its closure sums gradients of Dask tasks, as dask-glm's does."""
    from scipy.optimize import fmin_l_bfgs_b

    num_samples = sum(digits_problem().unit_sizes)
    chunks = [(k, len(workers)) for k in range(len(workers))]
    num_evaluations, began = 0, 0.0
    seconds: list[float] = []
    losses: list[float] = []
    latest = float("nan")

    def closure(point: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        nonlocal num_evaluations, latest, began
        num_evaluations += 1
        values = point.astype(np.float32)
        futures: list[Future[Any]] = [
            client.submit(_chunk, values, *chunk, minibatch_size, workers=[worker], pure=False)
            for chunk, worker in zip(chunks, workers, strict=True)
        ]
        results = [future.result() for future in futures]
        grad = np.sum([grad for _, grad in results], axis=0) / num_samples
        latest = sum(loss for loss, _ in results) / num_samples
        if num_evaluations == 1:
            began = time.monotonic()
        return latest, grad.astype(np.float64)

    def after(point: npt.NDArray[np.float64]) -> None:
        seconds.append(time.monotonic() - began)
        losses.append(latest)

    initial = digits_problem().initial().double().numpy()
    fmin_l_bfgs_b(
        closure, initial, m=history_length, maxiter=num_iterations, callback=after, factr=0, pgtol=0
    )
    return Trace(seconds, losses, num_evaluations)


_PROBLEM: list[TorchProblem] = []


def _chunk(
    values: npt.NDArray[np.float32], index: int, count: int, minibatch_size: int
) -> tuple[float, npt.NDArray[np.float32]]:
    """On a worker: loss and gradient summed over its share of the units."""
    from engine.ledger import Lease

    if not _PROBLEM:
        _PROBLEM.append(digits_problem())
    problem, parameters = _PROBLEM[0], torch.from_numpy(values)
    total: Tensor = torch.zeros_like(parameters)
    grad, loss = torch.empty_like(parameters), 0.0
    for unit in range(index, len(problem.unit_sizes), count):
        size = problem.unit_sizes[unit]
        for payload, num in problem.minibatches(Lease(0, 0, unit, 0, size), minibatch_size):
            loss += problem.gradient_(parameters, payload, grad) * num
            total.add_(grad, alpha=num)
    return loss, total.numpy()
