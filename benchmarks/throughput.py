"""Images per second of Downpour against as many independent plain torch loops on the same cores.

    python -m benchmarks.throughput

Two replicas of one thread and two shards, the demo's network, mini-batches of 64 from memory,
SGD with momentum. The rival is two plain loops with torch's fused SGD that share nothing: what
the machine does when nobody communicates. Rounds alternate; each figure is a ratio of medians.
"""

import statistics
import tempfile
from pathlib import Path

import distributed

from benchmarks._figures import Figure, state
from benchmarks._plain_loop import PlainLoops
from benchmarks._subject import DEMO_NET, SubjectFactory
from engine.config import ClusterConfig, DownpourConfig, MomentumConfig
from engine.dask_train import train_downpour
from engine.events import Row
from tasks.cluster import open_cluster

MINIBATCH = 64
NUM_ROUNDS = 5
ROUND_S = 8.0
CLUSTER = ClusterConfig(num_replicas=2, num_shards=2, threads_per_replica=1)


def main() -> None:
    figures = []
    loops = PlainLoops(CLUSTER.num_replicas, DEMO_NET, MINIBATCH, "momentum")
    with open_cluster(CLUSTER) as client:
        for n in (1, 4):
            ours, rival = [], []
            speed = loops.run(3.0)
            for _ in range(NUM_ROUNDS):
                rival.append(loops.run(ROUND_S))
                ours.append(run_downpour(client, n, num_samples=int(speed * ROUND_S)))
            figures.append(
                Figure(
                    name=f"images_per_s_n{n}",
                    unit=f"images/s, n_push = n_fetch = {n}",
                    ours=statistics.median(ours),
                    rival=statistics.median(rival),
                    rival_name="2 independent loops, fused SGD",
                    goal=0.9,
                )
            )
    state("throughput", figures)


def run_downpour(client: distributed.Client, n: int, num_samples: int) -> float:
    """Images per second of one short run, while all replicas work."""
    factory = SubjectFactory(DEMO_NET, MINIBATCH, num_samples // MINIBATCH // 8 + 1, MINIBATCH * 8)
    config = DownpourConfig(
        minibatch_size=MINIBATCH,
        num_epochs=1,
        n_push=n,
        n_fetch=n,
        rule=MomentumConfig(learning_rate=0.001, weight_decay=5e-4),
    )
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        train_downpour(client, factory, config, CLUSTER, Path(folder), {}, rows.append)
    return steady_speed(rows)


def steady_speed(rows: list[Row]) -> float:
    """Images per second from the first moment all replicas have reported to the last one."""
    progress = [row for row in rows if row["event"] == "progress"]
    times = [[r["time_s"] for r in progress if r["replica"] == i] for i in range(2)]
    start, stop = max(t[0] for t in times), min(t[-1] for t in times)
    window = [row for row in progress if start <= row["time_s"] <= stop]
    return float(
        (window[-1]["samples"] - window[0]["samples"])
        / (window[-1]["time_s"] - window[0]["time_s"])
    )


if __name__ == "__main__":
    main()
