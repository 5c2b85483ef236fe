"""Learning problems that do something to the process that works on them, once in a run."""

import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from engine.torch_problem import TorchProblem
from tests.engine.problems import classifier, network

#: After how many gradients in one process which signal goes off.
FUSES = {"SIGKILL": 20, "SIGSTOP": 60}


def fused(
    folder: str, pause_s: float, factory: Callable[[], TorchProblem] = classifier
) -> TorchProblem:
    """A problem slower by `pause_s` a gradient, with FUSES that each go off once."""
    problem = factory()
    plain, count = problem.gradient_, 0

    def gradient_(parameters: Tensor, payload: object, grad: Tensor) -> float:
        nonlocal count
        count += 1
        time.sleep(pause_s)
        for name, at in FUSES.items():
            if count == at and _mine(Path(folder) / name):
                # With n_fetch = n_push = 1 no push of this process is under way now.
                # To this very thread: one meant for the process may reach it a push later.
                signal.raise_signal(getattr(signal, name))
        return plain(parameters, payload, grad)

    problem.gradient_ = gradient_  # type: ignore[method-assign]
    return problem


def slow(pause_s: float) -> TorchProblem:
    """The classifier, slower by `pause_s` a gradient."""
    problem = classifier()
    plain = problem.gradient_

    def gradient_(parameters: Tensor, payload: object, grad: Tensor) -> float:
        time.sleep(pause_s)
        return plain(parameters, payload, grad)

    problem.gradient_ = gradient_  # type: ignore[method-assign]
    return problem


def thorough(pause_s: float) -> TorchProblem:
    """The classifier; a validation takes so long."""
    problem = classifier()
    plain = problem.validate

    def validate(parameters: Tensor) -> dict[str, float]:
        time.sleep(pause_s)
        return plain(parameters)

    problem.validate = validate  # type: ignore[method-assign]
    return problem


def greedy(folder: str, pause_s: float) -> TorchProblem:
    """The classifier; the first process that has computed ten gradients takes all memory."""
    problem = slow(pause_s)
    plain, count = problem.gradient_, 0

    def gradient_(parameters: Tensor, payload: object, grad: Tensor) -> float:
        nonlocal count
        count += 1
        if count == 10 and _mine(Path(folder) / "greedy"):
            hoard = []
            while True:
                hoard.append(b"\1" * (16 << 20))
        return plain(parameters, payload, grad)

    problem.gradient_ = gradient_  # type: ignore[method-assign]
    return problem


def poisoned(folder: str, driver: int, pause_s: float) -> TorchProblem:
    """The classifier; every gradient is NaN in the first process but `driver` that builds it."""
    problem = slow(pause_s)
    if os.getpid() != driver and _mine(Path(folder) / "poison"):
        problem.gradient_ = lambda parameters, payload, grad: float(grad.fill_(math.nan)[0])
    return problem


def hopeless() -> TorchProblem:
    """The classifier, of which one weight is NaN."""
    module = network()
    next(module.parameters()).data[0, 0] = math.nan
    return classifier(module)


def deadly(driver: int) -> TorchProblem:
    """A problem that kills every process but `driver` that builds it, as a broken library does."""
    if os.getpid() != driver:
        os.kill(os.getpid(), signal.SIGKILL)
    return classifier()


def broken(driver: int) -> TorchProblem:
    """A problem that only the process `driver` can build."""
    if os.getpid() != driver:
        raise FileNotFoundError("no such data on this worker")
    return classifier()


def _mine(claim: Path) -> bool:
    """True for the first process that asks."""
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
