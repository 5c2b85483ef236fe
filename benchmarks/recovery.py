"""How soon a run is itself again after a loss, and what losses cost.

    python -m benchmarks.recovery [SECONDS]

    shard     killed: until its successor serves, with the digest of its state unchanged
    replica   stopped (SIGSTOP): until it is fenced
    goodput   of four replicas one is killed every 15 s for SECONDS (default 180): samples that
              count, against the same run undisturbed
    flow      killed with Dask's scheduler in it, same command again: until it trains, with no
              acknowledged update computed again

The demo's network. Times are compared with what the program owes its users.
"""

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._figures import Figure, state
from benchmarks._subject import DEMO_NET, SubjectFactory
from engine import memory_folder
from engine.config import ClusterConfig, DownpourConfig, MomentumConfig
from engine.dask_train import train_downpour
from engine.events import Row
from tasks.cluster import open_cluster

MINIBATCH = 64
FACTORY = SubjectFactory(DEMO_NET, MINIBATCH, num_units=100, unit_size=6400)
CONFIG = DownpourConfig(
    minibatch_size=MINIBATCH,
    num_epochs=1000,
    rule=MomentumConfig(learning_rate=0.001),
    validate_every_epochs=1000.0,
)
KILL_EVERY_S = 15.0


class OverError(Exception):
    """Enough was seen."""


class Observed:
    """A run in a thread of its own; its rows can be waited for."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._changed = threading.Condition()
        self._over = False

    def __call__(self, row: Row) -> None:
        with self._changed:
            self.rows.append(row | {"clock": time.monotonic()})
            self._changed.notify_all()
            if self._over:
                raise OverError

    def end(self) -> None:
        self._over = True

    def wait(self, event: str, wanted: Callable[[Row], bool] = lambda row: True) -> Row:
        """The newest such row, when there is one."""

        def found() -> list[Row]:
            return [row for row in self.rows if row["event"] == event and wanted(row)]

        with self._changed:
            if not self._changed.wait_for(found, 120):
                raise TimeoutError(f"no {event} came")
            return found()[-1]

    def counted(self) -> int:
        """Samples that count so far."""
        return int(self.wait("progress")["samples"])


def of(role: str, index: int) -> Callable[[Row], bool]:
    """True for rows of this role."""
    return lambda row: bool(row[role] == index)


@contextmanager
def running(cluster: ClusterConfig, config: DownpourConfig = CONFIG) -> Iterator[Observed]:
    """A run that has begun; it is ended with the block."""
    observed = Observed()

    def train(folder: str) -> None:
        try:
            train_downpour(client, FACTORY, config, cluster, Path(folder), {}, observed)
        except OverError:
            return

    with tempfile.TemporaryDirectory() as folder, open_cluster(cluster) as client:
        thread = threading.Thread(target=train, args=(folder,))
        thread.start()
        observed.wait("progress")
        yield observed
        observed.end()
        thread.join()


def losses() -> list[Figure]:
    """A shard is killed, then a replica stopped."""
    with running(ClusterConfig(num_replicas=2, num_shards=2)) as run:
        replicas = [run.wait("replica_joined", of("replica", index)) for index in range(2)]
        shard = run.wait("shard_serving", of("shard", 0))
        for replica in replicas:  # so that nothing changes between the two looks at the state
            os.kill(replica["pid"], signal.SIGSTOP)
        time.sleep(0.5)
        before = digest()
        start = time.monotonic()
        os.kill(shard["pid"], signal.SIGKILL)
        again = run.wait("shard_serving", lambda row: row["shard"] == 0 and row["epoch"] == 2)
        serving_s = again["clock"] - start
        if digest() != before:
            raise AssertionError("the state of the shard has changed")
        for replica in replicas:
            os.kill(replica["pid"], signal.SIGCONT)
        time.sleep(2.0)
        start = time.monotonic()
        os.kill(replicas[1]["pid"], signal.SIGSTOP)
        lost = run.wait("replica_lost", of("replica", 1))
        fenced_s = lost["clock"] - start
    return [
        owed("shard killed, serving again", serving_s, 5.0),
        owed("replica stopped, fenced", fenced_s, 10.0),
    ]


def digest() -> str:
    """SHA-256 of shard 0's table of applied pushes, values and slots."""
    (path,) = memory_folder.root().glob(f"verydeep-{os.getpid()}-*/shard-00.state")
    return hashlib.sha256(path.read_bytes()[4096:]).hexdigest()


def goodput(seconds: float) -> Figure:
    """Samples that count with and without kills."""
    cluster = ClusterConfig(num_replicas=4, num_shards=2, threads_per_replica=1, max_restarts=1000)
    rates = []
    for kills in (False, True):
        with running(cluster) as run:
            time.sleep(5.0)
            first, start = run.counted(), time.monotonic()
            for victim in itertools.cycle(range(4)):
                time.sleep(min(KILL_EVERY_S, max(0.0, start + seconds - time.monotonic())))
                if time.monotonic() >= start + seconds:
                    break
                if kills:
                    seat = run.wait("replica_joined", of("replica", victim))
                    os.kill(seat["pid"], signal.SIGKILL)
            rates.append((run.counted() - first) / (time.monotonic() - start))
    return Figure(
        "goodput, a replica killed every 15 s", "images/s", rates[1], rates[0], "undisturbed", 0.9
    )


def flow() -> list[Figure]:
    """The flow with its scheduler is killed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.recovery", "train", folder]
        log = Path(folder) / "events.jsonl"
        first = subprocess.Popen(command)
        wait_for_progress(log, 6)
        first.kill()
        first.wait()
        start, rows = time.monotonic(), log.read_text().count('"progress"')
        acknowledged = last_samples(log, "progress", "samples")
        second = subprocess.Popen(command)
        wait_for_progress(log, rows + 1)
        training_s = time.monotonic() - start
        resumed = last_samples(log, "start", "resumed_at_samples")
        second.terminate()
        second.wait()
    return [
        owed("flow and scheduler killed, training again", training_s, 15.0),
        Figure("samples resumed at", "samples", resumed, acknowledged, "acknowledged", 1.0),
    ]


def wait_for_progress(log: Path, count: int) -> None:
    while not log.exists() or log.read_text().count('"progress"') < count:
        time.sleep(0.02)


def last_samples(log: Path, event: str, field: str) -> int:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return max(int(row[field]) for row in rows if row["event"] == event)


def train(folder: str) -> None:
    """What `flow` kills."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    cluster = ClusterConfig(num_replicas=2, num_shards=2)
    with open_cluster(cluster) as client:
        train_downpour(client, FACTORY, CONFIG, cluster, Path(folder), {})


def owed(name: str, found_s: float, limit_s: float) -> Figure:
    return Figure(name, "s", found_s, limit_s, "owed", 1.0, more_is_better=False)


def main() -> None:
    if sys.argv[1:2] == ["train"]:
        train(sys.argv[2])
        return
    seconds = float(sys.argv[1]) if sys.argv[1:] else 180.0
    state("recovery", [*losses(), *flow(), goodput(seconds)])


if __name__ == "__main__":
    main()
