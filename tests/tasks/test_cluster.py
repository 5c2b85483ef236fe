"""The cluster of a run: real processes."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

import psutil
import pytest
import torch
from distributed import Client, get_worker

from engine.config import ClusterConfig
from engine.instructions import RunFailedError
from tasks.cluster import (
    environment_at_start,
    open_cluster,
    threads_per_replica,
    workers_on_demand,
)
from tests.kills import real_kill

pytestmark = pytest.mark.dask
ROOT = Path(__file__).parents[2]
CONFIG = ClusterConfig(num_replicas=1, num_shards=1, threads_per_replica=3)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(CONFIG) as client:
        yield client


def name_and_environment() -> tuple[str, dict[str, str]]:
    return get_worker().name, dict(os.environ)


def seen_by(client: Client, role: str) -> tuple[str, dict[str, str]]:
    future = client.submit(name_and_environment, resources={f"{role}-0": 1}, pure=False)
    return future.result(timeout=30)


def test_replicas_and_shards_are_workers_of_their_own(client: Client) -> None:
    assert seen_by(client, "replica")[0] == "replica-0"
    assert seen_by(client, "shard")[0] == "shard-0"


def test_torch_threads_are_those_of_the_role(client: Client) -> None:
    for role, number in (("replica", 3), ("shard", 1)):
        assert seen_by(client, role)[1]["OMP_NUM_THREADS"] == str(number)
        threads = client.submit(torch.get_num_threads, resources={f"{role}-0": 1}, pure=False)
        assert threads.result(timeout=30) == number


def fork_server(client: Client) -> psutil.Process:
    """The parent of all workers."""
    (parent,) = set(client.run(os.getppid).values())
    return psutil.Process(parent)


#: Tells of the fork server in a process where nobody has started another one before.
_TELL = """
import json, os, sys
from tasks.cluster import open_cluster
from tests.tasks.test_cluster import CONFIG, fork_server
if __name__ == "__main__":
    with open_cluster(CONFIG) as client:
        server = fork_server(client)
        loaded = client.run(lambda: {"torch", "engine.replica_role"} <= sys.modules.keys())
        facts = {
            "trim threshold": server.environ().get("MALLOC_TRIM_THRESHOLD_"),
            "ours": server.ppid() == os.getpid(),
            "threads": server.num_threads(),
            "session of its own": os.getsid(server.pid) == server.pid,
            "loaded": list(loaded.values()),
        }
        print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("fork-server")
    (folder / "tells.py").write_text(_TELL)
    variables = {n: v for n, v in os.environ.items() if n not in environment_at_start()}
    done = subprocess.run(
        [sys.executable, "tells.py"],
        cwd=folder,
        env=variables | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_workers_keep_freed_memory_for_the_next_step(facts: dict[str, object]) -> None:
    # malloc has read its variables when the program began that the workers were forked from.
    assert facts["trim threshold"] == str(2**30)


def test_all_workers_are_forked_from_one_process_out_of_reach_of_signals(
    facts: dict[str, object],
) -> None:
    assert facts["ours"]
    assert facts["threads"] == 1  # others would not exist in a fork, but hold locks there
    assert facts["session of its own"]
    assert facts["loaded"] == [True, True]


def test_workers_have_the_variables_that_were_set_since_the_fork_server_began(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SET_LATER", "yes")
    with open_cluster(CONFIG) as client:
        assert seen_by(client, "shard")[1]["SET_LATER"] == "yes"


_OPEN = """
from tasks.cluster import open_cluster
from tests.tasks.test_cluster import CONFIG, fork_server
import os, time
if __name__ == "__main__":
    with open_cluster(CONFIG) as client:
        print(fork_server(client).pid, *client.run(os.getpid).values(), flush=True)
        time.sleep(60)  # it is killed long before
"""


def test_no_process_outlives_one_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "opens.py").write_text(_OPEN)
    parent = subprocess.Popen(
        [sys.executable, "opens.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 3
        parent.kill()
    _, alive = psutil.wait_procs([psutil.Process(p) for p in pids if psutil.pid_exists(p)], 10)
    assert alive == []


def test_every_port_is_on_loopback(client: Client) -> None:
    own = psutil.Process()
    connections = [c for p in (own, *own.children(recursive=True)) for c in p.net_connections()]
    listening = {c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def test_a_killed_worker_comes_back_and_its_task_runs_again(client: Client) -> None:
    victim = client.submit(os.getpid, resources={"shard-0": 1}, pure=False).result(timeout=30)
    task = client.submit(name_and_environment, resources={"shard-0": 1}, pure=False)
    real_kill(victim, "dask worker")
    assert task.result(timeout=30)[0] == "shard-0"
    assert client.submit(os.getpid, resources={"shard-0": 1}, pure=False).result(30) != victim


_WITHOUT_SEMAPHORES = """
import os, signal
from multiprocessing.synchronize import SemLock
from tasks.cluster import open_cluster
from tests.tasks.test_cluster import CONFIG
def refuse(*_):
    raise OSError("no semaphore, please")
if __name__ == "__main__":
    SemLock.__init__ = refuse
    with open_cluster(CONFIG) as client:
        victim = client.submit(os.getpid, resources={"shard-0": 1}).result(30)
        os.kill(victim, signal.SIGKILL)
        client.submit(os.getpid, resources={"shard-0": 1}, pure=False).result(30)
"""


def test_no_semaphore_has_a_name_that_a_killed_run_would_leave(tmp_path: Path) -> None:
    """Those of multiprocessing's queues do; a worker starts, is replaced and stops without any."""
    (tmp_path / "opens.py").write_text(_WITHOUT_SEMAPHORES)
    subprocess.run(
        [sys.executable, "opens.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )


def test_a_killed_worker_comes_back_however_long_its_start_takes(client: Client) -> None:
    server = fork_server(client)
    victim = client.submit(os.getpid, resources={"shard-0": 1}, pure=False).result(timeout=30)
    server.suspend()  # as if the machine had no time for it
    try:
        real_kill(victim, "dask worker")
        time.sleep(16)  # Dask looks after 15 s
    finally:
        server.resume()
    assert client.submit(os.getpid, resources={"shard-0": 1}, pure=False).result(30) != victim


@contextmanager
def killed_while_they_start(number: int | None) -> Iterator[list[int]]:
    """Kill the first worker's process that is born; then others, up to `number`; None: all."""
    (server,) = {child for child in psutil.Process().children() if is_fork_server(child)}
    before, killed, over = set(server.children()), list[int](), threading.Event()

    def kill() -> None:
        while not over.is_set() and len(killed) != number:
            for born in list(set(server.children()) - before)[:1]:
                before.add(born)
                real_kill(born.pid, "dask worker")
                killed.append(born.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield killed
    finally:
        over.set()
        killer.join()


def is_fork_server(process: psutil.Process) -> bool:
    return "multiprocessing.forkserver" in " ".join(process.cmdline())


@pytest.mark.usefixtures("client")  # has started the fork server
def test_a_worker_that_is_killed_while_it_starts_is_started_again() -> None:
    with killed_while_they_start(3) as killed, open_cluster(CONFIG) as other:
        pids = set(other.run(os.getpid).values())
    assert len(killed) == 3
    assert len(pids) == 2
    assert not pids & set(killed)


@pytest.mark.usefixtures("client")
def test_workers_that_are_killed_again_and_again_while_they_start_are_given_up() -> None:
    message = (
        r"the worker of (replica|shard)-0 was lost 4 times in a row while it started, the last "
        r"time its process was killed by signal 9 \(SIGKILL\)"
    )
    with (
        killed_while_they_start(None) as killed,
        pytest.raises(RunFailedError, match=message),
        open_cluster(CONFIG),
    ):
        pass
    assert len(killed) >= 4


def test_workers_do_not_import_the_main_module_of_their_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec("tests.tasks.rows", None))
    with open_cluster(CONFIG) as client:
        names = client.submit(eval, "dir(__import__('__main__'))").result(timeout=30)
    assert "eventful_run" not in names


def test_nothing_is_left_when_the_cluster_is_closed() -> None:
    environment, spec = dict(os.environ), sys.modules["__main__"].__spec__
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with open_cluster(CONFIG) as client:
        started = set(client.run(os.getpid).values())
    deadline = time.monotonic() + 10
    while any(map(psutil.pid_exists, started - before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, started - before))
    assert dict(os.environ) == environment
    assert sys.modules["__main__"].__spec__ is spec


def square_and_process(number: int) -> tuple[int, int]:
    return number * number, os.getpid()


def test_work_for_one_starts_no_workers() -> None:
    with workers_on_demand(CONFIG) as run_parallel:
        assert list(run_parallel(square_and_process, [3])) == [(9, os.getpid())]


def test_work_for_many_is_done_by_workers_in_order() -> None:
    with workers_on_demand(CONFIG) as run_parallel:
        results = list(run_parallel(square_and_process, range(6)))
    assert [square for square, _ in results] == [0, 1, 4, 9, 16, 25]
    assert os.getpid() not in {process for _, process in results}


def raise_error(number: int) -> int:
    raise ValueError(f"item {number} is bad")


def test_an_error_in_a_worker_reaches_the_caller_as_it_is(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with (
        workers_on_demand(CONFIG) as run_parallel,
        pytest.raises(ValueError, match=r"^item 0 is bad$"),
    ):
        list(run_parallel(raise_error, range(3)))
    assert "Compute Failed" not in capfd.readouterr().err


@pytest.mark.parametrize(("num_replicas", "expected"), [(1, 6), (2, 3), (4, 1), (8, 1)])
def test_replicas_share_the_cores_equally(
    monkeypatch: pytest.MonkeyPatch, num_replicas: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    assert threads_per_replica(ClusterConfig(num_replicas=num_replicas)) == expected


def test_without_shards_there_are_workers_for_replicas_only() -> None:
    with open_cluster(ClusterConfig(num_replicas=2, num_shards=3), with_shards=False) as client:
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2
        assert client.submit(os.getpid, resources={"replica-1": 1}, pure=False).result(30)
