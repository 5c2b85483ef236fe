"""Sandblaster against torch's and scipy's L-BFGS, its coordinator's memory, and a straggler.

python -m benchmarks.sandblaster              all of it
python -m benchmarks.sandblaster rivals       one part: rivals, coordination, memory or straggler
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import psutil
import torch

from benchmarks._batch_rivals import Trace, scipy_lbfgs, torch_lbfgs
from benchmarks._batch_subjects import Bowl, Idle, digits_problem
from benchmarks._figures import Figure, state
from benchmarks._sandblaster_runs import (
    HISTORY,
    MINIBATCH,
    Row,
    half_the_digits,
    lbfgs,
    our_trace,
    overhead,
    train_ours,
)
from engine.batch.config import DescentConfig
from engine.config import ClusterConfig, SgdConfig
from engine.dask_sandblaster import train_sandblaster
from engine.sandblaster.config import SandblasterConfig
from tasks.cluster import open_cluster

ITERATIONS, ROUNDS, COORDINATION_ROUNDS = 4, 2, 3
SIZES = (100_000, 50_000_000)
PAUSE_S, SLOWDOWN, EVALUATIONS = 0.02, 4.0, 6


def rivals() -> list[Figure]:
    """Time to one loss on the demo's network, in turns; of each the fastest of its rounds."""
    cluster = ClusterConfig(num_replicas=2, num_shards=2)
    found: dict[str, list[Trace]] = {"ours": [], "scipy": [], "torch": []}
    with open_cluster(cluster) as client:
        info = client.scheduler_info(n_workers=-1)["workers"]
        names = [f"replica-{k}" for k in range(cluster.num_replicas)]
        addresses = [a for a, worker in info.items() if worker["name"] in names]
        for _ in range(ROUNDS):
            rows = train_ours(client, cluster, digits_problem, ITERATIONS)
            found["ours"].append(our_trace(rows))
            args = (MINIBATCH, ITERATIONS, HISTORY)
            found["scipy"].append(scipy_lbfgs(client, addresses, *args))
            found["torch"].append(torch_lbfgs(*args))
    target = max(min(trace.losses) for traces in found.values() for trace in traces)
    times = {name: min(t.time_to(target) for t in traces) for name, traces in found.items()}
    for name, traces in found.items():
        each = min(trace.seconds[-1] / (trace.num_evaluations - 1) for trace in traces)
        print(f"{name}: {each:.3f} s an evaluation, {traces[0].num_evaluations} of them; losses")
        print("   ", " ".join(f"{loss:.4f}" for loss in traces[0].losses))
    print(f"times are those to loss {target:.4f}")
    return [
        less("time_to_loss", "s", times["ours"], times["torch"], "torch LBFGS", 0.9),
        less("time_to_loss_scipy", "s", times["ours"], times["scipy"], "scipy + Dask", 1.0),
    ]


def coordination() -> list[Figure]:
    """What is lost of iterations of a little over a second on two quiet cores; median of rounds."""
    cluster = ClusterConfig(num_replicas=2, num_shards=2)
    shares = []
    with open_cluster(cluster) as client:
        for _ in range(COORDINATION_ROUNDS):
            rows = train_ours(client, cluster, half_the_digits, 2 * ITERATIONS)
            shares.append(overhead(rows))
            taken = [row["time_s"] for row in rows if row["event"] == "iteration"]
            seconds = [after - before for before, after in pairwise(taken)]
            print("seconds of each iteration:", " ".join(f"{each:.3f}" for each in seconds))
            print(f"share lost: {shares[-1]:.4f}")
    # As a ratio above 1: what may be lost over what is lost.
    lost = median(shares)
    return [less("coordination_overhead", "share", lost, 0.05, "5 % of an iteration", 1.0)]


def memory() -> list[Figure]:
    """Resident memory of the coordinator's process while it drives, at two sizes."""
    found = {}
    for size in SIZES:
        command = [sys.executable, "-m", "benchmarks.sandblaster", "resident", str(size)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        resident, round_trips = output.split()[-2:]
        found[size] = float(resident)
        print(f"{size:,} parameters: {float(resident):.1f} MB, {round_trips} round trips/iteration")
    small, large = SIZES
    figure = less("coordinator_memory_5e7", "MB", found[large], found[small], "at 1e5", 0.95)
    return [figure]


def resident(size: int) -> None:
    """In a process of its own: three iterations, and the largest resident memory at any event."""
    process, seen = psutil.Process(), []
    rows: list[Row] = []

    def look(row: Row) -> None:
        rows.append(row)
        if row["event"] in ("evaluation", "iteration"):
            seen.append(process.memory_info().rss / 1e6)

    cluster = ClusterConfig(num_replicas=1, num_shards=2)
    config = SandblasterConfig(
        minibatch_size=4, num_epochs=100, rule=SgdConfig(), optimiser=lbfgs(3, history_length=2)
    )
    with open_cluster(cluster) as client, tempfile.TemporaryDirectory() as folder:
        train_sandblaster(client, _Bowl(size), config, cluster, Path(folder), {}, look)
    taken = [row for row in rows if row["event"] == "iteration"]
    trips = (taken[-1]["round_trips"] - taken[0]["round_trips"]) / (len(taken) - 1)
    print(f"{max(seen):.2f} {trips:.2f}")


class _Bowl:
    """Builds a `Bowl`."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self) -> Bowl:
        return Bowl(self.size)


class _Idle:
    """Builds an `Idle`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self) -> Idle:
        return Idle(self.folder, PAUSE_S, SLOWDOWN)


def straggler() -> list[Figure]:
    """Batch time with one of two replicas 4 times slower, then stopped."""
    whole = len(range(Idle.unit_sizes[0])) * PAUSE_S  # one replica alone
    ideal = {"slowed": whole / (1 + 1 / SLOWDOWN), "stopped": whole}
    backed_up, without = straggling(max_copies=2), straggling(max_copies=1)
    figures = []
    for phase, ideal_s in ideal.items():
        for label, batch in (("", backed_up), ("_without_backup", without)):
            goal = 1 / 1.15 if not label else 0.0
            name = f"batch_time_{phase}{label}"
            figures.append(less(name, "s", batch[phase], ideal_s, "ideal", goal))
    return figures


def straggling(max_copies: int) -> dict[str, float]:
    """Seconds of a batch in each phase; without backup tasks a stopped replica is waited for."""
    cluster = ClusterConfig(
        num_replicas=2,
        num_shards=1,
        heartbeat_interval_s=0.5,
        heartbeat_timeout_s=60.0 if max_copies > 1 else 6.0,
    )
    config = SandblasterConfig(
        minibatch_size=1,
        num_epochs=3 * EVALUATIONS,
        rule=SgdConfig(),
        max_copies=max_copies,
        optimiser=DescentConfig(learning_rate=0.01, loss_tolerance=0.0),
    )
    batches: list[float] = []
    pids: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder) / "slow"

        def listen(row: Row) -> None:
            if row["event"] == "replica_joined":
                pids.setdefault(row["replica"], row["pid"])
            if row["event"] != "evaluation":
                return
            batches.append(row["seconds"])
            if len(batches) == EVALUATIONS:
                control.write_text(str(pids[1]))
            elif len(batches) == 2 * EVALUATIONS:
                control.unlink()
                os.kill(pids[1], signal.SIGSTOP)
            elif len(batches) == 3 * EVALUATIONS and psutil.pid_exists(pids[1]):
                os.kill(pids[1], signal.SIGCONT)

        with open_cluster(cluster) as client:
            factory = _Idle(Path(folder))
            train_sandblaster(client, factory, config, cluster, Path(folder), {}, listen)
    slowed = batches[EVALUATIONS + 1 : 2 * EVALUATIONS]
    stopped = batches[2 * EVALUATIONS : 3 * EVALUATIONS]
    # A replica that is waited for in vain holds up the first batch only: it is replaced then.
    worst = max(stopped) if max_copies == 1 else median(stopped)
    return {"slowed": median(slowed), "stopped": worst}


def less(name: str, unit: str, ours: float, rival: float, rival_name: str, goal: float) -> Figure:
    """A figure of which less is better."""
    return Figure(name, unit, ours, rival, rival_name, goal, more_is_better=False)


PARTS: dict[str, Callable[[], list[Figure]]] = {
    "rivals": rivals,
    "coordination": coordination,
    "memory": memory,
    "straggler": straggler,
}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["resident"]:
        resident(int(arguments[1]))
        return
    torch.manual_seed(0)
    figures = [figure for part in arguments or PARTS for figure in PARTS[part]()]
    state("sandblaster", figures)


if __name__ == "__main__":
    main(sys.argv[1:])
