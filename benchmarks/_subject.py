"""The demo's network on mini-batches that lie in memory: the engine's cost, not the decoder's."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.device import computing_device
from engine.ledger import Lease
from engine.problem import Minibatch
from engine.torch_problem import TorchProblem
from models.config import ModelConfig
from models.vgg import build_vgg

NUM_CLASSES = 10
DEMO_NET = ModelConfig(
    name="A",
    num_classes=NUM_CLASSES,
    input_size=32,
    width_factor=0.25,
    head_widths=(256, 256),
    initialisation="he",
)
VGG_A = ModelConfig(
    name="A",
    num_classes=NUM_CLASSES,
    input_size=32,
    head_widths=(256, 256),
    initialisation="he",
)
_POOL = 8


def minibatch_pool(size: int) -> list[tuple[Tensor, Tensor]]:
    """A few random mini-batches of 32x32 images, the same in every process."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(size, 3, 32, 32, generator=generator),
            torch.randint(NUM_CLASSES, (size,), generator=generator),
        )
        for _ in range(_POOL)
    ]


def mean_loss(module: nn.Module, payload: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = payload
    return F.cross_entropy(module(images), labels)


@dataclass(frozen=True)
class SubjectFactory:
    """Builds the problem: `num_units` units of `unit_size` samples of `net`."""

    net: ModelConfig
    minibatch_size: int
    num_units: int
    unit_size: int

    def __call__(self) -> TorchProblem:
        pool = minibatch_pool(self.minibatch_size)

        def minibatches(lease: Lease, size: int) -> Iterator[Minibatch]:
            for start in range(lease.start, lease.stop, size):
                images, labels = pool[start // size % _POOL]
                count = min(size, lease.stop - start)
                yield Minibatch((images[:count], labels[:count]), count)

        module = build_vgg(self.net, NUM_CLASSES).to(computing_device())
        return TorchProblem(module, mean_loss, [self.unit_size] * self.num_units, minibatches)
