"""Problems whose exact batch gradient is known, and in-process runs on them."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from engine.config import ClusterConfig
from engine.layout import Layout
from engine.ledger import Lease
from engine.problem import Minibatch
from engine.sandblaster.config import SandblasterConfig
from engine.sandblaster.inprocess import Faults, InProcess

UNIT_SIZES = (13, 7, 20)
NUM_SAMPLES = sum(UNIT_SIZES)
SIZE = 40
CLUSTER = ClusterConfig(num_replicas=3, num_shards=2, max_restarts=100_000)
ALL_FAULTS = Faults(kill_replica=0.01, freeze_replica=0.01, kill_shard=0.01, kill_shard_inside=0.05)


class WholeNumbers:
    """Half the squared distance to each sample, all of it whole numbers: sums are exact."""

    unit_sizes = UNIT_SIZES

    def __init__(self, whole: bool = True, dtype: torch.dtype = torch.float64) -> None:
        generator = torch.Generator().manual_seed(0)
        samples = 16 * torch.randn(NUM_SAMPLES, SIZE, generator=generator, dtype=torch.float64)
        self.samples = (samples.round() if whole else samples).to(dtype)
        self.layout = Layout(("all",), ((SIZE,),), dtype)

    def initial(self) -> Tensor:
        return torch.arange(SIZE, dtype=self.layout.dtype)

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        first = sum(UNIT_SIZES[: lease.unit])
        for start in range(lease.start, lease.stop, size):
            stop = min(start + size, lease.stop)
            yield Minibatch(self.samples[first + start : first + stop], stop - start)

    def gradient_(self, parameters: Tensor, payload: Tensor, grad: Tensor) -> float:
        grad.copy_((parameters - payload).mean(0))
        return self.loss(parameters, payload)

    def loss(self, parameters: Tensor, payload: Tensor) -> float:
        return float(((parameters - payload) ** 2).sum(1).mean() / 2)

    def validate(self, parameters: Tensor) -> dict[str, float]:
        return {"norm": float(parameters.norm())}


def exact_gradient(point: Tensor) -> Tensor:
    """Of the whole batch."""
    return (point - WholeNumbers().samples).sum(0) * (1.0 / NUM_SAMPLES)


def exact_loss(point: Tensor) -> float:
    """Of the whole batch."""
    return float(((point - WholeNumbers().samples) ** 2).sum() / 2 / NUM_SAMPLES)


def config(**changed) -> SandblasterConfig:
    # Mini-batches of a power of two: means of whole numbers are exact then.
    return SandblasterConfig(**{"minibatch_size": 1, "portion_minibatches": 2} | changed)


def in_process(folder: Path, seed: int, faults: Faults | None = None, **changed) -> InProcess:
    """A run of the problem; `changed` are settings."""
    folder.mkdir(exist_ok=True)
    problem = WholeNumbers(changed.pop("whole", True))
    return InProcess(problem, config(**changed), CLUSTER, folder, seed=seed, faults=faults)
