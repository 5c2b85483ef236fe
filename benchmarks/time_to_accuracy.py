"""Accuracy against time of SGD, Downpour, Downpour with Adagrad and Sandblaster, one network.

    python -m benchmarks.time_to_accuracy                a picture in outputs/, figures of it beside
    python -m benchmarks.time_to_accuracy FILE.png       the picture elsewhere

Figure 4 of Dean et al. 2012 in small: seconds until the demo's network tells 78 % of
Fashion-MNIST's test images apart (12,000 images to learn from). The two `plain` loops are one
process with a thread for each core; all others have two replicas of one thread each, and
`synchronous` is torch's DistributedDataParallel. Then Downpour and the latter once more with
replica 1 at a quarter of its speed. Counted from when the processes are ready to when the weights
are there that the validation (1,000 images) finds good enough. All begin with the same weights:
there is no warm start, which in the paper took SGD ten hours.

Each contender has the best settings of a small grid, by the samples that it took to the goal:
rates of plain SGD 0.02, 0.05, *0.1*, of Downpour SGD 0.02, *0.05*, 0.1, of Adagrad 0.0025, *0.005*,
0.01 for Downpour and for DistributedDataParallel alike (the plain loop has theirs). Sandblaster's
batches: all 12,000 images (61 % after 75 s, with either line search), 2,400, *1,200*.
"""

import json
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from benchmarks._curves import draw_curves
from benchmarks._figures import Figure, state
from benchmarks._slowed import Slowed
from conf.load import load
from data.staging import stage
from engine.batch.config import ArmijoConfig, MultibatchConfig
from engine.config import (
    AdagradConfig,
    ClusterConfig,
    DownpourConfig,
    SgdConfig,
    SingleConfig,
    SynchronousConfig,
)
from engine.dask_sandblaster import train_sandblaster
from engine.dask_train import train_downpour
from engine.events import Row
from engine.sandblaster.config import SandblasterConfig
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
Compared = DownpourConfig | SandblasterConfig | SingleConfig | SynchronousConfig
RULE = AdagradConfig(gamma=0.005)
MULTIBATCH = MultibatchConfig(
    num_samples=12_000,
    batch_size=1_200,
    line_search=ArmijoConfig(rounding=1e-7),
)
ALGORITHMS: Mapping[str, Compared] = {
    "plain SGD": SingleConfig(**COMMON, rule=SgdConfig(learning_rate=0.1)),
    "Downpour, SGD": DownpourConfig(**COMMON, rule=SgdConfig(learning_rate=0.05)),
    "Downpour, Adagrad": DownpourConfig(**COMMON, rule=RULE),
    "Sandblaster, L-BFGS": SandblasterConfig(
        **COMMON, rule=RULE, optimiser=MULTIBATCH, validate_every_iterations=3
    ),
    "plain Adagrad": SingleConfig(**COMMON, rule=RULE),
    "synchronous, Adagrad": SynchronousConfig(**COMMON, rule=RULE),
}
SLOWED = ("Downpour, Adagrad", "synchronous, Adagrad")


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
            case "checkpoint" | "iteration":
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
    seconds: float  # to the goal
    curve: list[tuple[float, float]]  # seconds, accuracy


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
    elif isinstance(algorithm, SandblasterConfig):
        with open_cluster(CLUSTER) as client:
            train_sandblaster(client, problem, algorithm, CLUSTER, folder, {}, listen)
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


def main(arguments: list[str]) -> None:
    picture = Path(arguments[0] if arguments else "outputs/time_to_accuracy.png")
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        problem = image_problem(Path(root))
        trials = {name: trial(algorithm, problem) for name, algorithm in ALGORITHMS.items()}
        for name in SLOWED:
            with Slowed() as slowed:
                trials[f"{name}, one replica slowed"] = trial(ALGORITHMS[name], problem, slowed)
                means = slowed.means
    draw_curves(picture, {name: trials[name].curve for name in ALGORITHMS}, ACCURACY)
    curves = picture.with_suffix(".json")
    curves.write_text(json.dumps({name: done._asdict() for name, done in trials.items()}))
    print_table(trials)
    print(f"{picture}, {curves}: {time.monotonic() - start:.0f} s in all; slowed by {means}")
    state("time_to_accuracy", figures({name: done.seconds for name, done in trials.items()}))


def print_table(trials: Mapping[str, Trial]) -> None:
    """One row for each contender."""
    goal = f"seconds to {100 * ACCURACY:.0f} %"
    table = Table("", goal, "after 10 s", "20 s", "40 s", "at its end", title="accuracy")
    for name, (seconds, curve) in trials.items():
        cells = [f"{seconds:.1f}" if curve[-1][1] >= ACCURACY else f"never in {LIMIT_S:.0f}"]
        for limit in (10.0, 20.0, 40.0, LIMIT_S):
            best = max((accuracy for at, accuracy in curve if at <= limit), default=0.0)
            cells.append(f"{100 * best:.1f} %")
        table.add_row(name, *cells)
    Console(width=140).print(table)


def figures(seconds: Mapping[str, float]) -> list[Figure]:
    """Ours against each rival; LIMIT_S stands for never."""
    adagrad, sgd = seconds["Downpour, Adagrad"], seconds["Downpour, SGD"]
    sandblaster = seconds["Sandblaster, L-BFGS"]
    pairs = [
        ("adagrad_against_synchronous", adagrad, "synchronous, Adagrad", 1.0),
        ("adagrad_against_plain", adagrad, "plain Adagrad", NO_CLAIM),
        ("sgd_against_synchronous", sgd, "synchronous, Adagrad", NO_CLAIM),
        ("sgd_against_plain", sgd, "plain SGD", NO_CLAIM),
        ("sandblaster_against_plain", sandblaster, "plain SGD", NO_CLAIM),
        (
            "slowed_against_synchronous",
            seconds["Downpour, Adagrad, one replica slowed"],
            "synchronous, Adagrad, one replica slowed",
            2.0,
        ),
    ]
    unit = f"s to {100 * ACCURACY:.0f} % accuracy"
    return [
        Figure(name, unit, ours, seconds[rival], rival, goal, more_is_better=False)
        for name, ours, rival, goal in pairs
    ]


if __name__ == "__main__":
    main(sys.argv[1:])
