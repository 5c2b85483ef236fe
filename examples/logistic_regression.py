"""Logistic regression with a gradient written by hand, by four replicas in one process."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from engine.library import (
    AdagradConfig,
    Arrays,
    DownpourConfig,
    Layout,
    Lease,
    Minibatch,
    train_in_process,
)


class LogisticRegression:
    """p(y = 1) = 1 / (1 + exp(-x.w)): a `Problem` without autograd or module."""

    def __init__(self, x: np.ndarray, y: np.ndarray) -> None:
        self._x, self._y = torch.as_tensor(x), torch.as_tensor(y)
        self._data = Arrays(self._x, self._y)
        self.unit_sizes = self._data.unit_sizes
        self.layout = Layout(("w",), ((x.shape[1],),))

    def initial(self) -> Tensor:
        return torch.zeros(self.layout.size)

    def minibatches(self, lease: Lease, size: int) -> Iterator[Minibatch]:
        return self._data.minibatches(lease, size)

    def gradient_(self, parameters: Tensor, payload: tuple[Tensor, Tensor], grad: Tensor) -> float:
        x, y = payload
        p = 1 / (1 + torch.exp(-x @ parameters))
        torch.mv(x.T, (p - y) / len(y), out=grad)
        return self.loss(parameters, payload)

    def loss(self, parameters: Tensor, payload: tuple[Tensor, Tensor]) -> float:
        x, y = payload
        p = 1 / (1 + torch.exp(-x @ parameters))
        return float(-(y * p.log() + (1 - y) * (1 - p).log()).mean())

    def validate(self, parameters: Tensor) -> dict[str, float]:
        right = (self._x @ parameters > 0) == (self._y > 0.5)
        return {"accuracy": float(right.float().mean())}


def main() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2000, 10)).astype("float32"), rng.normal(size=10)
    problem = LogisticRegression(x, (x @ w > 0).astype("float32"))
    config = DownpourConfig(minibatch_size=20, num_epochs=5, rule=AdagradConfig(gamma=0.3))
    result = train_in_process(problem, config, num_replicas=4, num_shards=1)
    print(f"accuracy {problem.validate(result.parameters)['accuracy']:.3f}")


if __name__ == "__main__":
    main()
