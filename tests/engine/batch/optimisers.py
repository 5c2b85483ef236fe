"""One of each optimiser, run until the gradient is 0 but for rounding, and a real problem."""

from typing import Any

import torch
from torch import Tensor

from engine.batch.config import (
    ArmijoConfig,
    ConjugateConfig,
    DescentConfig,
    LbfgsConfig,
    MultibatchConfig,
    OptimiserConfig,
    OwlqnConfig,
)
from tests.engine.batch.objectives import breast_cancer, logistic

EXACT: dict[str, Any] = {
    "loss_tolerance": 0.0,
    "gradient_tolerance": 1e-9,
    "max_iterations": 5000,
}
LBFGS: dict[str, OptimiserConfig] = {
    "lbfgs": LbfgsConfig(**EXACT),
    "two loops": LbfgsConfig(form="two_loop", history_length=3, **EXACT),
    "backtracking": LbfgsConfig(line_search=ArmijoConfig(), **EXACT),
}
SMOOTH: dict[str, OptimiserConfig] = {
    **LBFGS,
    "conjugate": ConjugateConfig(**EXACT),
    "descent": DescentConfig(learning_rate=0.5, **EXACT),
    "multibatch": MultibatchConfig(num_samples=569, batch_size=80, growth=1.3, **EXACT),
}
EVERY: dict[str, OptimiserConfig] = {**SMOOTH, "owlqn": OwlqnConfig(l1=0.01, **EXACT)}
#: Minimum over 30 weights.
REAL = logistic(breast_cancer(), 0.1)


def zeros(size: int) -> Tensor:
    """(size,), in double precision."""
    return torch.zeros(size, dtype=torch.float64)
