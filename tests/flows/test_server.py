"""What `make server` brings up: a real server, pool, deployments and worker."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.server import ServerError, require_free
from tests.flows.conftest import tiny

pytestmark = pytest.mark.flow
ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(port: int, path: str, content: Any) -> Any:
    """What the server answers; asks again, as Prefect's clients do, while its database is locked:
    it says 503 then, and has done nothing.
    """
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask_once(port, path, content)
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                raise
        time.sleep(0.5)


def ask_once(port: int, path: str, content: Any) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api{path}",
        data=json.dumps(content).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


class Running:
    """The program `flows.server`, up and ready."""

    def __init__(self, home: Path, port: int) -> None:
        self.port = port
        self.log = home / "log.txt"
        environment = {**os.environ, "PREFECT_HOME": str(home)}
        environment.pop("PREFECT_API_URL", None)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "flows.server", "--port", str(port)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + 150
        while "Ctrl-C stops" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def stop(self) -> list[psutil.Process]:
        """Stop it as a service manager would; return what it had started."""
        started = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        return started


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    server = Running(tmp_path_factory.mktemp("prefect"), free_port())
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def test_the_deployments_have_their_schedules_and_limits(running: Running) -> None:
    deployments = {d["name"]: d for d in ask(running.port, "/deployments/filter", {})}
    crons = {
        name: [schedule["schedule"]["cron"] for schedule in deployment["schedules"]]
        for name, deployment in deployments.items()
    }
    assert crons == {"nightly": ["0 3 * * *"], "weekly": ["0 5 * * 0"], "on-demand": []}
    for deployment in deployments.values():
        assert deployment["work_pool_name"] == "local"
        assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
        assert set(deployment["parameters"]) == {"config_name", "overrides"}


def test_a_run_of_a_deployment_reaches_the_checkout(running: Running) -> None:
    """The run's one error is ours: so its process found conf/, and the module it runs."""
    (deployment,) = (
        d for d in ask(running.port, "/deployments/filter", {}) if d["name"] == "on-demand"
    )
    parameters = {"config_name": "config", "overrides": ["algorithm.n_pusch=4"]}
    run = ask(
        running.port, f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters}
    )
    deadline = time.monotonic() + 120
    state = run["state"]
    while state["type"] not in ("COMPLETED", "FAILED", "CRASHED") and time.monotonic() < deadline:
        time.sleep(0.5)
        (run,) = ask(
            running.port, "/flow_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}}
        )
        state = run["state"]
    assert "did you mean 'algorithm.n_push'" in state["message"]


def test_a_cancelled_run_leaves_a_checkpoint(running: Running, tmp_path: Path) -> None:
    (deployment,) = (
        d for d in ask(running.port, "/deployments/filter", {}) if d["name"] == "weekly"
    )
    endless = ("algorithm.num_epochs=100000", "algorithm.validate_every_epochs=100000")
    parameters = {"config_name": "config", "overrides": tiny(tmp_path, *endless)}
    content = {"parameters": parameters}
    run = ask(running.port, f"/deployments/{deployment['id']}/create_flow_run", content)
    try:
        wait_until(lambda: "progress" in events(tmp_path))
    finally:
        cancel = {"state": {"type": "CANCELLING"}, "force": True}
        ask(running.port, f"/flow_runs/{run['id']}/set_state", cancel)
    wait_until(lambda: state_of(running, run) in ("CANCELLED", "CRASHED", "FAILED"))
    assert state_of(running, run) == "CANCELLED"
    assert events(tmp_path)[-2:] == ["stopping", "checkpoint"]


def state_of(running: Running, run: dict[str, Any]) -> str:
    content = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    return str(ask(running.port, "/flow_runs/filter", content)[0]["state_type"])


def events(root: Path) -> list[str]:
    """What the only run below `root` has recorded, but for progress after the first."""
    logs = list(root.glob("outputs/*/training/events.jsonl"))
    names = [json.loads(line)["event"] for log in logs for line in log.read_text().splitlines()]
    return [name for i, name in enumerate(names) if name != "progress" or name not in names[:i]]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_port_in_use_is_named_with_another_to_choose(running: Running) -> None:
    with pytest.raises(ServerError, match=rf"port {running.port} .* --port {running.port + 1}"):
        require_free(running.port)


def test_stopping_it_stops_all_that_it_started(running: Running) -> None:
    started = running.stop()
    assert len(started) >= 2
    assert running.process.returncode == 0
    assert psutil.wait_procs(started, timeout=10)[1] == []
