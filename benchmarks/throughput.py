"""Images per second of Downpour against as many independent plain torch loops on the same cores.

    python -m benchmarks.throughput [demo] [vgg_a]

Two replicas of one thread and two shards on mini-batches from memory. The rivals are two plain
loops with torch's fused optimiser that share nothing: what the machine does when nobody
communicates. One pair runs as anybody would start it, the other with the malloc settings that our
workers have, which shows what communication alone costs. Rounds alternate; each figure is a ratio
of medians.

    demo   the demo's network, 0.68 million parameters, mini-batches of 64, SGD with momentum
    vgg_a  VGG-A for 32x32 images, 9.35 million parameters, mini-batches of 32, Adagrad

Where there is a GPU all gradients are computed there, and half of the cores serve as shards.
"""

import os
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import distributed

from benchmarks._figures import Figure, state
from benchmarks._plain_loop import PlainLoops
from benchmarks._subject import DEMO_NET, VGG_A, SubjectFactory
from engine.config import AdagradConfig, ClusterConfig, DownpourConfig, MomentumConfig, RuleConfig
from engine.dask_train import train_downpour
from engine.device import computing_device
from engine.events import Row
from models.config import ModelConfig
from tasks.cluster import open_cluster

NUM_ROUNDS = 5
NUM_SHARDS = (os.cpu_count() or 2) // 2 if computing_device().type == "cuda" else 2
CLUSTER = ClusterConfig(num_replicas=2, num_shards=NUM_SHARDS, threads_per_replica=1)


@dataclass(frozen=True)
class Subject:
    """What is trained, how long a round takes, and the least ratio that we claim."""

    net: ModelConfig
    minibatch: int
    rule: RuleConfig
    round_s: float
    goal: float


SUBJECTS = {
    "demo": Subject(DEMO_NET, 64, MomentumConfig(learning_rate=0.001, weight_decay=5e-4), 6.0, 0.9),
    "vgg_a": Subject(VGG_A, 32, AdagradConfig(gamma=0.001), 12.0, 0.95),
}


def main() -> None:
    figures = []
    with open_cluster(CLUSTER) as client:
        for name in sys.argv[1:] or SUBJECTS:
            for n in (1, 4):
                figures += measure(client, name, n)
    state("throughput", figures)


def measure(client: distributed.Client, name: str, n: int) -> list[Figure]:
    """Ours against both rivals, turn by turn."""
    subject = SUBJECTS[name]
    rivals = {
        "2 plain loops": PlainLoops(2, subject.net, subject.minibatch, subject.rule, tuned=False),
        "the same, our malloc": PlainLoops(
            2, subject.net, subject.minibatch, subject.rule, tuned=True
        ),
    }
    speeds: dict[str, list[float]] = {rival: [] for rival in rivals}
    ours = []
    for _ in range(NUM_ROUNDS):
        for rival, loops in rivals.items():
            speeds[rival].append(loops.run(subject.round_s))
        num_samples = int(max(s[-1] for s in speeds.values()) * subject.round_s)
        ours.append(run_downpour(client, subject, n, num_samples))
    for loops in rivals.values():
        loops.close()
    return [
        Figure(
            name=f"{name}_n{n}{suffix}",
            unit=f"images/s, n = {n}",
            ours=statistics.median(ours),
            rival=statistics.median(speeds[rival]),
            rival_name=rival,
            goal=subject.goal,
        )
        for rival, suffix in zip(rivals, ("", "_malloc"), strict=True)
    ]


def run_downpour(client: distributed.Client, subject: Subject, n: int, num_samples: int) -> float:
    """Images per second of one short run, while all replicas work."""
    unit_size = 8 * subject.minibatch
    factory = SubjectFactory(
        subject.net, subject.minibatch, num_samples // unit_size + 1, unit_size
    )
    config = DownpourConfig(
        minibatch_size=subject.minibatch, num_epochs=1, n_push=n, n_fetch=n, rule=subject.rule
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        train_downpour(client, factory, config, CLUSTER, Path(folder), {}, rows.append)
    return steady_speed(rows)


def steady_speed(rows: list[Row], settled_s: float = 0.0) -> float:
    """Images per second from the first moment all replicas have reported to the last one.

    Args:
        settled_s: what a run needs to settle, left out behind that first moment.
    """
    progress = [row for row in rows if row["event"] == "progress"]
    times = [[r["time_s"] for r in progress if r["replica"] == i] for i in range(2)]
    start, stop = max(t[0] for t in times) + settled_s, min(t[-1] for t in times)
    window = [row for row in progress if start <= row["time_s"] <= stop]
    return float(
        (window[-1]["samples"] - window[0]["samples"])
        / (window[-1]["time_s"] - window[0]["time_s"])
    )


if __name__ == "__main__":
    main()
