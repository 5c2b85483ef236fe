"""The engine as a library: all that a program needs which trains something of its own.

Give it a `Problem`: a torch module with its loss (`TorchProblem`), or a class of yours that has a
gradient. `examples/` shows both. Nothing here knows of Prefect, Hydra or images.
"""

from engine.arrays import Arrays
from engine.config import (
    AdagradConfig,
    AdamWConfig,
    ClipConfig,
    ClusterConfig,
    DownpourConfig,
    MomentumConfig,
    RmspropConfig,
    ScheduleConfig,
    SgdConfig,
    SingleConfig,
    SynchronousConfig,
    WarmStartConfig,
)
from engine.dask_train import train_downpour
from engine.device import computing_device
from engine.inprocess import train_in_process
from engine.layout import Layout
from engine.ledger import Lease
from engine.partition import Partitioned
from engine.problem import Minibatch, Problem
from engine.result import TrainingResult
from engine.single import train_single
from engine.synchronous.train import train_synchronous
from engine.torch_problem import TorchProblem

__all__ = [
    "AdagradConfig",
    "AdamWConfig",
    "Arrays",
    "ClipConfig",
    "ClusterConfig",
    "DownpourConfig",
    "Layout",
    "Lease",
    "Minibatch",
    "MomentumConfig",
    "Partitioned",
    "Problem",
    "RmspropConfig",
    "ScheduleConfig",
    "SgdConfig",
    "SingleConfig",
    "SynchronousConfig",
    "TorchProblem",
    "TrainingResult",
    "WarmStartConfig",
    "computing_device",
    "train_downpour",
    "train_in_process",
    "train_single",
    "train_synchronous",
]
