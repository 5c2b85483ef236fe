"""Prefect's server is killed under a running flow, for a time or for good: it does not mind."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import tiny
from tests.flows.test_interrupted import rows, wait_for
from tests.flows.test_server import ask, free_port
from tests.kills import real_kill

pytestmark = pytest.mark.flow
ROOT = Path(__file__).resolve().parents[2]


class Server:
    """`prefect server start`, with a database that outlives it."""

    def __init__(self, home: Path) -> None:
        self.port = free_port()
        self.environment = {
            **{name: value for name, value in os.environ.items() if "PREFECT" not in name},
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api",
        }
        self._processes: list[psutil.Process] = []
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(self.port)]
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1"],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._popen = process
        wait_until(self._healthy)
        own = psutil.Process(process.pid)
        self._processes = [own, *own.children(recursive=True)]

    def kill(self) -> None:
        """Kill all of it."""
        for process in self._processes:
            real_kill(process.pid, "prefect server")
        self._popen.wait()

    def stop(self) -> None:
        for process in self._processes:
            if process.is_running():
                process.kill()
        self._popen.wait()

    def _healthy(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.environment['PREFECT_API_URL']}/health", timeout=2)
        except (urllib.error.URLError, OSError):
            return False
        return True


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 150
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("prefect"))
    yield server
    server.stop()


@contextmanager
def training(server: Server, root: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`flows.train` in a process that has made progress; what it prints is in `root`/log."""
    command = [sys.executable, "-m", "flows.train", *tiny(root, "algorithm.num_epochs=20")]
    with (root / "log").open("wb") as log:
        flow = subprocess.Popen(
            command,
            cwd=ROOT,
            env=server.environment | environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(root, "progress", flow)
        yield flow
    finally:
        flow.kill()
        flow.wait()


def check_trained_undisturbed(root: Path) -> None:
    events = [row["event"] for row in rows(root)]
    assert events[-1] == "finished"
    assert not {"replica_lost", "shard_lost", "stopping"} & set(events)


def test_a_flow_whose_server_is_killed_and_comes_back_trains_on_and_ends_well(
    server: Server, tmp_path: Path
) -> None:
    with training(server, tmp_path) as flow:
        server.kill()
        before = len(rows(tmp_path))
        wait_until(lambda: len(rows(tmp_path)) > before + 3)  # there is no server, and it trains
        server.start()
        assert flow.wait(150) == 0, (tmp_path / "log").read_text()
    check_trained_undisturbed(tmp_path)
    (run,) = ask(server.port, "/flow_runs/filter", {})
    assert run["state_type"] == "COMPLETED"


def test_a_flow_whose_server_is_killed_for_good_trains_on_and_ends_well(
    server: Server, tmp_path: Path
) -> None:
    # Prefect tries five times, for two minutes at each of two places, before it gives a server up.
    with training(server, tmp_path, PREFECT_CLIENT_MAX_RETRIES="1") as flow:
        server.kill()
        assert flow.wait(150) == 0, (tmp_path / "log").read_text()
    check_trained_undisturbed(tmp_path)
    assert "no Prefect server answers at" in (tmp_path / "log").read_text()
    assert list(tmp_path.glob("outputs/*/weights.safetensors"))
