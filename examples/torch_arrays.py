"""A torch module on your own arrays, by two replicas and two parameter shards: four processes."""

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from engine import library as lib
from tasks.cluster import open_cluster  # plain Dask

x = np.random.default_rng(0).normal(size=(4000, 8)).astype("float32")
data = lib.Arrays(x, (x[:, 0] * x[:, 1] > 0).astype("int64"))


def loss(net: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return nn.functional.cross_entropy(net(batch[0]), batch[1])


def problem() -> lib.TorchProblem:
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)).to(lib.computing_device())
    return lib.TorchProblem(net, loss, data.unit_sizes, data.minibatches)


if __name__ == "__main__":
    rule, cluster = lib.AdagradConfig(gamma=0.05), lib.ClusterConfig(num_replicas=2, num_shards=2)
    config = lib.DownpourConfig(minibatch_size=32, num_epochs=10, rule=rule)
    with open_cluster(cluster) as client:
        folder, identity = Path("outputs/arrays"), {"settings": str(config)}
        lib.train_downpour(client, problem, config, cluster, folder, identity, print)
