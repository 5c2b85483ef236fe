"""Seconds until a network tells 78 % of Fashion-MNIST's test images apart, by four algorithms.

    python -m benchmarks.time_to_accuracy

The demo's network and data (12,000 images). Downpour with Adagrad and with plain SGD, and torch's
DistributedDataParallel, have two replicas of one thread each; `single` is one plain loop with a
thread for each core. Then Downpour and DistributedDataParallel once more with replica 1 at a
quarter of its speed. Counted from when the processes are ready to when the weights are there that
the validation (1,000 images) finds good enough.
"""

import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks._figures import Figure, state
from benchmarks._slowed import Slowed
from conf.load import load
from data.staging import stage
from engine.config import (
    AdagradConfig,
    ClusterConfig,
    DownpourConfig,
    SgdConfig,
    SingleConfig,
    SynchronousConfig,
)
from engine.dask_train import train_downpour
from engine.events import Row
from engine.single import train_single
from engine.synchronous.train import train_synchronous
from tasks.cluster import open_cluster
from tasks.problem import ImageProblemFactory

ACCURACY = 0.78
LIMIT_S = 90.0
SLOWER = 4.0
NO_CLAIM = 0.0  # a figure that is stated for comparison
CLUSTER = ClusterConfig(num_replicas=2, num_shards=2, threads_per_replica=1)
COMMON: dict[str, Any] = {"minibatch_size": 64, "num_epochs": 40, "validate_every_epochs": 0.25}
Compared = DownpourConfig | SingleConfig | SynchronousConfig
RULE = AdagradConfig(gamma=0.005)
#: The rates are the best of those tried, for the rivals too (momentum took them more epochs).
ALGORITHMS: Mapping[str, Compared] = {
    "Downpour, Adagrad": DownpourConfig(**COMMON, rule=RULE),
    "Downpour, SGD": DownpourConfig(**COMMON, rule=SgdConfig(learning_rate=0.05)),
    "synchronous": SynchronousConfig(**COMMON, rule=RULE),
    "single": SingleConfig(**COMMON, rule=RULE),
}
SLOWED = ("Downpour, Adagrad", "synchronous")


class ReachedError(Exception):
    """Raised in the listener: the run has shown what it can."""


class Watch:
    """Listens to a run until it is good enough or out of time; slows one replica if asked to."""

    def __init__(self, slowed: Slowed | None) -> None:
        self._slowed = slowed
        self._ready_s = self._deadline = 0.0
        self._saved_s: dict[int, float] = {}  # samples of a checkpoint -> when it was there
        self.seconds = LIMIT_S
        self.curve: list[tuple[float, float]] = []  # seconds, accuracy

    def __call__(self, row: Row) -> None:
        match row["event"]:
            case "start" | "replica_joined" | "rank_joined":
                self._ready_s = row["time_s"]
                if self._slowed and row.get("replica") == 1:
                    self._slowed.slow(row["pid"], SLOWER)
            case "checkpoint":
                self._saved_s[row["samples"]] = row["time_s"]
            case "validation":
                seconds = self._saved_s[row["samples"]] - self._ready_s
                self.curve.append((round(seconds, 1), 1 - row["metrics"]["top1_error"]))
                if self.curve[-1][1] >= ACCURACY:
                    self.seconds = min(seconds, LIMIT_S)
                    raise ReachedError
        if row["time_s"] - self._ready_s > LIMIT_S:
            raise ReachedError


class Trial(NamedTuple):
    seconds: float
    curve: list[tuple[float, float]]


def trial(algorithm: Compared, problem: ImageProblemFactory, slowed: Slowed | None = None) -> Trial:
    """Train until good enough; LIMIT_S seconds when it never was."""
    watch = Watch(slowed)
    with tempfile.TemporaryDirectory() as name, suppress(ReachedError):
        train(algorithm, problem, Path(name), watch)
    return Trial(watch.seconds, watch.curve)


def train(algorithm: Compared, problem: ImageProblemFactory, folder: Path, listen: Watch) -> None:
    """One run by any algorithm, with processes of its own."""
    if isinstance(algorithm, SingleConfig):
        torch.set_num_threads(CLUSTER.num_replicas)
        train_single(problem, algorithm, folder, {}, listen)
    elif isinstance(algorithm, SynchronousConfig):
        with open_cluster(CLUSTER, with_shards=False) as client:
            train_synchronous(client, problem, algorithm, CLUSTER, folder, {}, listen)
    else:
        with open_cluster(CLUSTER) as client:
            train_downpour(client, problem, algorithm, CLUSTER, folder, {}, listen)


def image_problem(root: Path) -> ImageProblemFactory:
    """The demo's problem, staged below `root`."""
    config = load(overrides=["experiment=demo"])
    return ImageProblemFactory(
        staged=stage(config.data, root).folder,
        input=config.data.input,
        model=config.model,
        seed=config.algorithm.seed,
        side=config.evaluation.single_side,
        batch_size=config.evaluation.batch_size,
    )


def main() -> None:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        problem = image_problem(Path(root))
        trials = {name: trial(algorithm, problem) for name, algorithm in ALGORITHMS.items()}
        for name in SLOWED:
            with Slowed() as slowed:
                trials[f"{name}, one replica slowed"] = trial(ALGORITHMS[name], problem, slowed)
                means = slowed.means
    for name, done in trials.items():
        print(f"{name}: {done.seconds:.1f} s", done.curve, file=sys.stderr)
    seconds = {name: done.seconds for name, done in trials.items()}
    print(f"{time.monotonic() - start:.0f} s in all; slowed by {means}", file=sys.stderr)
    state("time_to_accuracy", figures(seconds))


def figures(seconds: Mapping[str, float]) -> list[Figure]:
    """Ours against each rival; LIMIT_S stands for never."""
    adagrad, sgd = seconds["Downpour, Adagrad"], seconds["Downpour, SGD"]
    pairs = [
        ("adagrad_against_synchronous", adagrad, "synchronous", 1.0),
        ("adagrad_against_single", adagrad, "single", NO_CLAIM),
        ("sgd_against_synchronous", sgd, "synchronous", NO_CLAIM),
        ("sgd_against_single", sgd, "single", NO_CLAIM),
        (
            "slowed_against_synchronous",
            seconds["Downpour, Adagrad, one replica slowed"],
            "synchronous, one replica slowed",
            2.0,
        ),
    ]
    unit = f"s to {100 * ACCURACY:.0f} % accuracy"
    return [
        Figure(name, unit, ours, seconds[rival], rival, goal, more_is_better=False)
        for name, ours, rival, goal in pairs
    ]


if __name__ == "__main__":
    main()
