"""What it costs that an acknowledged push survives a loss of power, and what checkpoints cost.

    python -m benchmarks.durability [n1] [n4] [vgg_a] [checkpoints] [log]

    n1, n4       images per second of the demo's net with durability=power, against process
    vgg_a        the same of VGG-A, 9.4 million parameters, n_push = n_fetch = 1
    checkpoints  the same with a checkpoint a second, against none, put on the default interval
    log          pushes of one shard's slice of VGG-A made durable by four threads that share syncs,
                 against a write and a sync of the same bytes for each

Two replicas of one thread and two shards. Runs alternate; images per second are compared by the
geometric mean of neighbours' ratios, so that a machine that grows slower or faster counts on both
sides, the log by medians. A run's first seconds are left out: on a virtual machine the first write
from a page of memory took 10 ms a MB, later ones 0.7, and runs were slowest then. An hour of
training does not notice. The log lies in the temporary folder: set TMPDIR to measure another disk.
"""

import itertools
import os
import statistics
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import distributed
import numpy as np
import torch

from benchmarks._figures import Figure, state
from benchmarks._subject import SubjectFactory
from benchmarks.throughput import CLUSTER, SUBJECTS, steady_speed
from engine.config import DownpourConfig
from engine.dask_train import train_downpour
from engine.events import Row
from engine.frames import as_bytes
from engine.ledger import Progress
from engine.push import Push
from engine.push_log import PushLog
from engine.state import NUM_ROWS, ROW
from tasks.cluster import open_cluster

NUM_ROUNDS, NUM_TURNS = 3, 8
#: Of one run, which lasts some ten seconds; the first of them do not count.
NUM_SAMPLES = {"demo": 24_000, "vgg_a": 2_400}
SETTLED_S = 2.0
#: What one checkpoint a second costs is what one in this many seconds costs so much less of.
DEFAULT_INTERVAL_S = DownpourConfig().checkpoint_every_s
_SLICE = 4_675_000
_NUM_THREADS, _PUSHES_EACH = 4, 12


class Made(NamedTuple):
    """Pushes made durable; all but the rate for one of them."""

    rate: float  # 1/s
    processor_ms: float
    syncs: float
    num_bytes: float


def log_figures() -> list[Figure]:
    """The log alone: how fast, how much of the processor, how many syncs, how many bytes."""
    ours, rival = [], []
    for _ in range(NUM_ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            rival.append(each_synced(Path(folder) / "each"))
            ours.append(grouped(Path(folder) / "log"))
    log, each = (Made(*map(statistics.median, zip(*made, strict=True))) for made in (ours, rival))
    rate = Figure("pushes made durable", "1/s", log.rate, each.rate, "a sync each", 1.0)
    return [
        rate,
        fewer("processor time", "ms a push", log.processor_ms, each.processor_ms, 2.0),
        fewer("syncs", "a push", log.syncs, each.syncs, 1.0),
        Figure("bytes", "a push", log.num_bytes, each.num_bytes, "the gradient", 0.999, False),
    ]


def fewer(name: str, unit: str, ours: float, rival: float, goal: float) -> Figure:
    """Of something of which less is better."""
    return Figure(name, unit, ours, rival, "write and sync of each", goal, more_is_better=False)


def each_synced(path: Path) -> Made:
    """Pushes that are written and synced one by one."""
    content = as_bytes(torch.randn(_SLICE))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    count = _NUM_THREADS * _PUSHES_EACH
    start, began = time.perf_counter(), time.process_time()
    for _ in range(count):
        os.write(descriptor, content)
        os.fdatasync(descriptor)
    rate = count / (time.perf_counter() - start)
    processor_ms = (time.process_time() - began) / count * 1000
    os.close(descriptor)
    return Made(rate, processor_ms, 1.0, len(content))


def grouped(folder: Path) -> Made:
    """Pushes of the log, by threads that share its syncs."""
    grad, lock = torch.randn(_SLICE), threading.Lock()
    log = PushLog(folder, epoch=1, limit_bytes=10**12)
    log.begin(0, np.zeros(NUM_ROWS, ROW))
    versions = itertools.count(1)

    def push(replica: int) -> None:
        for sequence in range(1, _PUSHES_EACH + 1):
            with lock:
                log.push(next(versions), Push(replica, 1, sequence, 0, Progress(1, sequence)), grad)
                end = log.written
            log.wait(end)

    threads = [threading.Thread(target=push, args=(index,)) for index in range(_NUM_THREADS)]
    count = _NUM_THREADS * _PUSHES_EACH
    start, began = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = count / (time.perf_counter() - start)
    processor_ms = (time.process_time() - began) / count * 1000
    log.close()
    return Made(rate, processor_ms, log.num_syncs / count, log.written / count)


def settings(subject: str, n: int = 1) -> DownpourConfig:
    """A run of one epoch with n_push = n_fetch = n."""
    return DownpourConfig(
        minibatch_size=SUBJECTS[subject].minibatch,
        num_epochs=1,
        n_push=n,
        n_fetch=n,
        rule=SUBJECTS[subject].rule,
    )


def compared(
    client: distributed.Client, subject: str, ours: DownpourConfig, rival: DownpourConfig
) -> list[float]:
    """Geometric means of images per second of two configurations, run in turns."""
    speeds: list[list[float]] = [[], []]
    pairs = list(zip(speeds, (ours, rival), strict=True))
    for _ in range(NUM_TURNS):
        for found, config in pairs:
            found.append(speed(client, subject, config))
        pairs.reverse()  # a machine that grows slower or faster favours neither
    return [statistics.geometric_mean(found) for found in speeds]


def speed(client: distributed.Client, subject: str, config: DownpourConfig) -> float:
    """Images per second of one short run, once it has settled."""
    size = config.minibatch_size
    num_units = NUM_SAMPLES[subject] // (8 * size) + 1
    factory = SubjectFactory(SUBJECTS[subject].net, size, num_units, 8 * size)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        train_downpour(client, factory, config, CLUSTER, Path(folder), {}, rows.append)
    return steady_speed(rows, SETTLED_S)


def power(client: distributed.Client, subject: str, n: int) -> Figure:
    """`power` against `process`; what is owed is 3.5 %."""
    process = settings(subject, n)
    ours, rival = compared(client, subject, replace(process, durability="power"), process)
    return Figure(f"{subject}, n = {n}", "images/s", ours, rival, "process", 0.965)


def checkpoints(client: distributed.Client) -> Figure:
    """Share of the default interval that remains for training."""
    never = settings("demo")
    often = replace(never, checkpoint_every_s=1.0, max_checkpoint_share=1.0)
    ours, rival = compared(client, "demo", often, never)
    cost_s = max(0.0, 1.0 - ours / rival)
    left = 1.0 - cost_s / DEFAULT_INTERVAL_S
    name = f"speed with a checkpoint each {DEFAULT_INTERVAL_S:g} s"
    return Figure(name, "images/s", left * rival, rival, "without", 0.965)


def main() -> None:
    parts = sys.argv[1:] or ["n1", "n4", "vgg_a", "checkpoints", "log"]
    figures = []
    if set(parts) - {"log"}:
        with open_cluster(CLUSTER) as client:
            figures += [power(client, "demo", n) for n in (1, 4) if f"n{n}" in parts]
            if "vgg_a" in parts:
                figures.append(power(client, "vgg_a", 1))
            if "checkpoints" in parts:
                figures.append(checkpoints(client))
    if "log" in parts:  # last, for it empties whatever burst the disk allows
        figures += log_figures()
    state("durability", figures)


if __name__ == "__main__":
    main()
