"""Problems for the Sandblaster benchmark."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks._subject import DEMO_NET, NUM_CLASSES, mean_loss
from engine.layout import Layout
from engine.ledger import Lease
from engine.problem import Minibatch
from engine.torch_problem import TorchProblem
from models.vgg import build_vgg

UNIT_SIZE = 500


def digits() -> tuple[Tensor, Tensor]:
    """scikit-learn's 1,797 digits, and the same a pixel to the right, and lower.

    Returns:
        Images (N, 3, 32, 32) and classes (N,). N = 7,188: a pass takes two seconds on two cores.
    """
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    small = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) - 5.0
    large = torch.nn.functional.interpolate(small, size=(32, 32), mode="bilinear")
    both = torch.cat([large, large.roll(1, dims=3)])
    all_four = torch.cat([both, both.roll(1, dims=2)]).expand(-1, 3, -1, -1).contiguous()
    return all_four, torch.tensor(classes).repeat(4)


def demo_net() -> torch.nn.Module:
    """The demo's network without dropout: the loss is a function of the parameters alone."""
    return build_vgg(replace(DEMO_NET, dropout=0.0), NUM_CLASSES)


def digits_problem() -> TorchProblem:
    """The demo's network on the digits."""
    images, classes = digits()

    def minibatches(lease: Lease, size: int) -> Iterator[Minibatch]:
        first = lease.unit * UNIT_SIZE
        for start in range(first + lease.start, first + lease.stop, size):
            part = slice(start, min(start + size, first + lease.stop))
            yield Minibatch((images[part], classes[part]), part.stop - part.start)

    sizes = [min(UNIT_SIZE, len(images) - start) for start in range(0, len(images), UNIT_SIZE)]
    return TorchProblem(demo_net(), mean_loss, sizes, minibatches)


class Bowl:
    """Half the squared distance to zero, over some samples that say nothing: cheap at any size."""

    unit_sizes = (8,)

    def __init__(self, size: int) -> None:
        self.layout = Layout(("all",), ((size,),))

    def initial(self) -> Tensor:
        return torch.linspace(1, 2, self.layout.size)

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        for start in range(lease.start, lease.stop, size):
            yield Minibatch(None, min(size, lease.stop - start))

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor) -> float:
        # A different curvature in either half, so that one step does not end it.
        half = len(grad) // 2
        torch.mul(parameters[:half], 3.0, out=grad[:half])
        grad[half:].copy_(parameters[half:])
        return self.loss(parameters, payload)

    def loss(self, parameters: Tensor, payload: Any) -> float:
        half = len(parameters) // 2
        first, second = parameters[:half], parameters[half:]
        return float(1.5 * first.dot(first) + 0.5 * second.dot(second))

    def validate(self, parameters: Tensor) -> dict[str, float]:
        return {}


class Idle(Bowl):
    """A gradient takes `pause_s`, its arithmetic included; one process may be slower."""

    unit_sizes = (64,)

    def __init__(self, folder: Path, pause_s: float, slowdown: float) -> None:
        super().__init__(1000)
        self._folder, self._pause_s, self._slowdown = folder, pause_s, slowdown

    def gradient_(self, parameters: Tensor, payload: Any, grad: Tensor) -> float:
        started = time.monotonic()
        slow = (self._folder / "slow").exists() and self._is_slow_one()
        loss = super().gradient_(parameters, payload, grad)
        pause_s = self._pause_s * (self._slowdown if slow else 1.0)
        time.sleep(max(0.0, started + pause_s - time.monotonic()))
        return loss

    def _is_slow_one(self) -> bool:
        return (self._folder / "slow").read_text() == str(os.getpid())
