"""Images per second of Downpour against torch's DistributedDataParallel with two processes.

    python -m benchmarks.synchronous [demo] [vgg_a]

The subjects of `benchmarks.throughput`, on the same cores and workers; rounds alternate.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import distributed

from benchmarks._figures import Figure, state
from benchmarks._subject import SubjectFactory
from benchmarks.throughput import CLUSTER, SUBJECTS, Subject, run_downpour, steady_speed
from engine.config import SynchronousConfig
from engine.events import Row
from engine.synchronous.train import train_synchronous
from tasks.cluster import open_cluster

NUM_ROUNDS = 3
INTERVALS = (1, 4)  # n_push = n_fetch
ROUND_S = 6.0


def main() -> None:
    figures = []
    with open_cluster(CLUSTER) as client:
        for name in sys.argv[1:] or SUBJECTS:
            figures += measure(client, name)
    state("synchronous", figures)


def measure(client: distributed.Client, name: str) -> list[Figure]:
    """Downpour at each interval beside the rival, turn by turn."""
    subject = SUBJECTS[name]
    runs: Mapping[int, Callable[[int], float]] = {
        0: partial(run_synchronous, client, subject),
        **{n: partial(run_downpour, client, subject, n) for n in INTERVALS},
    }
    speeds: dict[int, list[float]] = {n: [] for n in runs}
    num_samples = int(run_synchronous(client, subject, 60 * subject.minibatch) * ROUND_S)
    for _ in range(NUM_ROUNDS):
        for n, run in runs.items():
            speeds[n].append(run(num_samples))
    return [
        Figure(
            name=f"{name}_n{n}",
            unit=f"images/s, n = {n}",
            ours=statistics.median(speeds[n]),
            rival=statistics.median(speeds[0]),
            rival_name="DistributedDataParallel, 2 processes",
            goal=1.0,
        )
        for n in INTERVALS
    ]


def run_synchronous(client: distributed.Client, subject: Subject, num_samples: int) -> float:
    """Images per second of one short run, while both processes work."""
    unit_size = 8 * subject.minibatch
    factory = SubjectFactory(
        subject.net, subject.minibatch, num_samples // unit_size + 1, unit_size
    )
    config = SynchronousConfig(minibatch_size=subject.minibatch, num_epochs=1, rule=subject.rule)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        train_synchronous(client, factory, config, CLUSTER, Path(folder), {}, rows.append)
    return steady_speed(rows)


if __name__ == "__main__":
    main()
