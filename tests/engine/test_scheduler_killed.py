"""Dask's scheduler, in a process of its own, is killed under a running training."""

import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from engine import memory_folder
from engine.dask_train import train_downpour
from engine.instructions import RunFailedError
from tests.engine.doomed import CLUSTER, CONFIG, FACTORY, IDENTITY
from tests.engine.problems import NUM_SAMPLES
from tests.engine.rows import Listener, Meddler, When
from tests.engine.threaded import latest
from tests.kills import real_kill

pytestmark = pytest.mark.dask
ROOT = Path(__file__).parents[2]
RESOURCES = "replica-0=1 replica-1=1 shard-0=1 shard-1=1"


class Deployed:
    """A scheduler and a worker for all roles, as a person starts them."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "scheduler.json"
        common = ["--host", "127.0.0.1", "--no-dashboard"]
        self.scheduler = self._start(
            "scheduler", *common, "--port", "0", "--scheduler-file", str(self._file)
        )
        _wait_until(self._file.exists)
        own = ["--nthreads", "4", "--no-nanny", "--resources", RESOURCES]
        own += ["--local-directory", str(folder), "--scheduler-file", str(self._file)]
        self.worker = self._start("worker", *common, *own)

    def client(self) -> Client:
        client = Client(scheduler_file=str(self._file), set_as_default=False)
        client.wait_for_workers(1, timeout=60)
        return client

    def close(self) -> None:
        for process in (self.worker, self.scheduler):
            process.kill()
            process.wait()

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "dask", *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )


def _wait_until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def deployed(tmp_path_factory) -> Iterator[functools.partial[Deployed]]:
    """Makes deployments, which end with the test."""
    made: list[Deployed] = []

    def deploy() -> Deployed:
        made.append(Deployed(tmp_path_factory.mktemp("dask")))
        return made[-1]

    yield deploy
    for one in made:
        one.close()


def test_training_goes_on_with_a_new_scheduler_and_computes_nothing_acknowledged_again(
    deployed, tmp_path
):
    first = deployed()
    heard = Meddler(
        When("progress", 3, lambda row: real_kill(first.scheduler.pid, "dask scheduler"))
    )
    client = first.client()
    with pytest.raises(RunFailedError, match="Dask's scheduler has ended"):
        train_downpour(client, FACTORY, CONFIG, CLUSTER, tmp_path, IDENTITY, heard)
    client.close(timeout=1)
    acknowledged = heard.of("progress")[-1]["samples"]

    again = Listener()
    with deployed().client() as client:
        train_downpour(client, FACTORY, CONFIG, CLUSTER, tmp_path, IDENTITY, again)
    assert again.of("start")[0]["resumed_at_samples"] >= acknowledged > 0
    assert latest(tmp_path).num_counted == CONFIG.num_epochs * NUM_SAMPLES
    assert not list(memory_folder.root().glob(f"verydeep-{os.getpid()}-*"))
