"""Downpour on a real cluster: processes that are killed, frozen, or all gone at once."""

import dataclasses
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from distributed import Client

from engine import checkpoint, memory_folder
from engine.config import ClusterConfig, DownpourConfig, MomentumConfig
from engine.coordinator_server import CoordinatorServer
from engine.dask_train import train_downpour
from engine.inprocess import train_in_process
from engine.instructions import RunFailedError
from engine.replay import replay
from engine.roles import await_end
from tasks.cluster import open_cluster
from tests.engine import doomed
from tests.engine.fuses import FUSES, broken, deadly, fused, poisoned, thorough
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES, classifier, ensemble, forgetful
from tests.engine.rows import Listener, Meddler, Row, When, in_file
from tests.engine.threaded import latest
from tests.kills import real_kill, was_killed

pytestmark = pytest.mark.dask
CLUSTER = doomed.CLUSTER
MINIBATCHES_PER_EPOCH = sum(-(-size // 4) for size in UNIT_SIZES)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(CLUSTER) as client:
        yield client


def config(**changed) -> DownpourConfig:
    fields = {"minibatch_size": 4, "num_epochs": 20, "validate_every_epochs": 99.0}
    return DownpourConfig(**fields | changed)


def memory_left() -> list[Path]:
    """Memory files of runs of this process."""
    return list(memory_folder.root().glob(f"verydeep-{os.getpid()}-*"))


@pytest.mark.parametrize("factory", [classifier, forgetful])
def test_one_replica_computes_the_bits_of_the_in_process_run(client, tmp_path, factory):
    settings = config(num_epochs=3, rule=MomentumConfig(learning_rate=0.05))
    cluster = ClusterConfig(
        num_replicas=1, num_shards=2, heartbeat_interval_s=0.2, heartbeat_timeout_s=2.0
    )
    heard = Listener()
    result = train_downpour(client, factory, settings, cluster, tmp_path, {}, heard)
    other = train_in_process(factory(), settings, num_replicas=1, num_shards=2)
    assert torch.equal(result.parameters, other.parameters)
    assert result.num_samples == 3 * NUM_SAMPLES
    assert in_file(tmp_path) == heard
    assert os.getpid() not in {row["pid"] for row in heard if "pid" in row}
    assert memory_left() == []


def test_killed_and_frozen_processes_cost_no_update_and_repeat_none(client, tmp_path):
    def kill_both_shards(row: Row) -> None:
        for serving in heard.of("shard_serving"):
            real_kill(serving["pid"], "shard")

    # Beside that, the fuses kill one replica and stop one.
    heard = Meddler(When("progress", 3, kill_both_shards))
    factory = functools.partial(fused, str(tmp_path), pause_s=0.002, factory=forgetful)
    settings = config(num_epochs=40, record=True)
    result = train_downpour(client, factory, settings, CLUSTER, tmp_path, {}, heard)

    assert all((tmp_path / fuse).exists() for fuse in FUSES)
    assert sorted(row["shard"] for row in heard.of("shard_lost")) == [0, 1]
    restored = {row["restored_from"] for row in heard.of("shard_serving") if row["epoch"] == 2}
    assert all(source.startswith("memory") for source in restored)
    for row in heard.of("process_ended"):  # the frozen one was killed by the coordinator
        if row["role"] == "replica":
            was_killed("replica", row["code"])
    lost = heard.of("replica_lost")
    assert len([row for row in heard.of("process_ended") if row["role"] == "replica"]) == len(lost)
    assert any(row["reason"].startswith("silent for") for row in lost)
    assert any(not row["reason"].startswith("silent for") for row in lost)
    assert result.num_samples == 40 * NUM_SAMPLES
    # A replica that a starved machine lost beside the two may have been in the middle of a push.
    unplanned = len(lost) - len(FUSES)
    for shard in latest(tmp_path).shards:
        expected = 40 * MINIBATCHES_PER_EPOCH
        assert expected - unplanned <= shard.version <= expected
    assert memory_left() == []
    start, end = checkpoint.read(tmp_path / "checkpoints" / "000000"), latest(tmp_path)
    vectors = [(start.read_shard(k), 0) for k in range(2)]
    versions = [shard.version for shard in end.shards]
    replayed = replay(forgetful(), settings, tmp_path / "record" / "000000", vectors, versions)
    assert torch.equal(replayed, result.parameters)

    again = train_downpour(client, factory, settings, CLUSTER, tmp_path, {})
    assert again.already_complete
    assert torch.equal(again.parameters, result.parameters)


def test_when_all_replicas_are_killed_again_and_again_the_run_says_how_each_ended(client, tmp_path):
    heard = Meddler(When("replica_joined", None, lambda row: real_kill(row["pid"], "replica")))
    cluster = dataclasses.replace(CLUSTER, max_restarts=1)
    with pytest.raises(RunFailedError) as raised:
        train_downpour(client, classifier, config(), cluster, tmp_path, {}, heard)
    first, *roles = str(raised.value).splitlines()
    assert re.match(r"replica \d was lost 2 times, cluster.max_restarts=1; the last time", first)
    assert [line.split(":")[0].strip() for line in roles] == ["replica 0", "replica 1"]
    lost = heard.of("replica_lost")  # one more may have joined, and not be missed yet
    assert len(lost) >= 3
    for row in lost:
        assert f"process {row['pid']} was killed by signal 9 (SIGKILL)" in str(raised.value)
    assert {row["pid"] for row in lost} <= {row["pid"] for row in heard.of("replica_joined")}
    assert memory_left() == []


def test_a_killed_training_goes_on_when_it_is_called_again(client, tmp_path):
    command = [sys.executable, "-m", "tests.engine.doomed", str(tmp_path)]
    killed = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    was_killed("flow", killed.wait(timeout=60))
    rows = in_file(tmp_path)
    acknowledged = max(row["samples"] for row in rows if row["event"] == "progress")
    left = latest(tmp_path)
    total = doomed.CONFIG.num_epochs * NUM_SAMPLES
    assert 0 < left.num_counted < total

    heard = Listener()  # its processes may still be alive for a moment
    result = train_downpour(
        client, doomed.FACTORY, doomed.CONFIG, CLUSTER, tmp_path, doomed.IDENTITY, heard
    )
    resumed_at = heard.of("start")[0]["resumed_at_samples"]
    assert resumed_at >= max(acknowledged, left.num_counted)  # nothing acknowledged is lost
    assert result.num_samples == total
    assert samples_done(heard) == total - resumed_at
    # Each replica may have been in the middle of a push.
    for shard in latest(tmp_path).shards:
        expected = doomed.CONFIG.num_epochs * MINIBATCHES_PER_EPOCH
        assert expected - CLUSTER.num_replicas <= shard.version <= expected
    assert not list(memory_folder.root().glob(f"verydeep-{killed.pid}-*"))
    assert wait_until_gone({row["pid"] for row in rows if "pid" in row}), "workers outlived it"


def wait_until_gone(pids: set[int]) -> bool:
    deadline = time.monotonic() + 15
    while any(psutil.pid_exists(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def samples_done(heard: list[Row]) -> int:
    """Samples of all replicas, by their own last reports."""
    rows = [row for row in heard if row["event"] == "progress"]
    return sum({row["replica"]: row["replica_samples"] for row in rows}.values())


def test_a_replica_that_cannot_build_its_problem_ends_the_run_with_its_error(client, tmp_path):
    factory = functools.partial(broken, os.getpid())
    with pytest.raises(RunFailedError, match=r"replica-\d-\w+ failed: FileNotFoundError.*no such"):
        train_downpour(client, factory, config(), CLUSTER, tmp_path, {})
    assert memory_left() == []


def test_a_process_that_dies_of_its_problem_ends_the_run_within_seconds(tmp_path):
    factory = functools.partial(deadly, os.getpid())
    # Dask gives a worker up that dies while it starts: either way the run ends with an error.
    cluster = ClusterConfig(num_replicas=1, num_shards=1, start_timeout_s=10)
    with (
        open_cluster(cluster) as client,
        pytest.raises(RunFailedError, match=r"replica 0 was lost 4 times in a row|no replica has"),
    ):
        train_downpour(client, factory, config(), cluster, tmp_path, {})
    assert memory_left() == []


def test_a_replica_that_computes_nonsense_is_left_out_and_the_other_does_its_work(client, tmp_path):
    factory = functools.partial(poisoned, str(tmp_path), os.getpid(), pause_s=0.002)
    heard = Listener()
    settings = config(max_bad_pushes=5)
    result = train_downpour(client, factory, settings, CLUSTER, tmp_path, {}, heard)
    (row,) = heard.of("replica_quarantined")
    assert "5 pushes in a row were not finite" in row["reason"]
    assert f"replica {row['replica']}, push" in row["reason"]
    assert torch.isfinite(result.parameters).all()
    assert result.num_samples == 20 * NUM_SAMPLES


def test_replicas_that_are_killed_when_they_are_done_do_not_matter(
    client, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("engine.training._TICK_S", 0.01)  # to look while Dask runs them again

    def kill_replicas(row: Row) -> None:
        for joined in heard.of("replica_joined"):
            real_kill(joined["pid"], "dask worker")

    def when_they_have_returned(row: Row) -> None:  # and the result of that is lost with them
        if row["samples"] == 20 * NUM_SAMPLES:
            threading.Timer(1.0, kill_replicas, (row,)).start()

    heard = Meddler(When("checkpoint", None, when_they_have_returned))
    factory = functools.partial(thorough, 3.0)
    result = train_downpour(client, factory, config(), CLUSTER, tmp_path, {}, heard)
    assert result.num_samples == 20 * NUM_SAMPLES
    assert len([row for row in heard.of("process_ended") if row["role"] == "replica"]) == 2
    assert "did not end" not in caplog.text
    assert memory_left() == []


def test_the_end_of_a_run_does_not_wait_for_what_a_role_returned(client):
    role = client.submit(os.getpid, resources={"replica-0": 1}, pure=False)
    pid, server = role.result(timeout=30), CoordinatorServer("127.0.0.1")
    ending = threading.Thread(target=await_end, args=([role], server), daemon=True)
    os.kill(pid, signal.SIGSTOP)  # and with it the only one who has that
    try:
        ending.start()
        ending.join(5)
        assert not ending.is_alive()
    finally:
        os.kill(pid, signal.SIGCONT)
        server.close()


def test_a_replica_has_no_connection_to_a_shard_without_a_tensor_of_its_own(client, tmp_path):
    seen: list[dict[int, set[int]]] = []

    def look(row: Row) -> None:
        shards = {r["shard"]: r["pid"] for r in heard.of("shard_serving")}  # the newest of each
        replicas = {r["replica"]: r["pid"] for r in heard.of("replica_joined")}
        ports = {port: shard for shard, pid in shards.items() for port in listening(pid)}
        peers = {replica: connected(pid) for replica, pid in replicas.items()}
        seen.append({r: {ports[p] for p in there if p in ports} for r, there in peers.items()})

    def kill_a_shard_and_a_replica(row: Row) -> None:
        real_kill(heard.of("shard_serving")[0]["pid"], "shard")
        real_kill(heard.of("replica_joined")[0]["pid"], "replica")

    heard = Meddler(When("progress", 2, kill_a_shard_and_a_replica), When("validation", None, look))
    settings = config(num_epochs=200, validate_every_epochs=5.0)
    result = train_downpour(client, ensemble, settings, CLUSTER, tmp_path, {}, heard)
    assert result.num_samples == 200 * NUM_SAMPLES
    assert len(heard.of("shard_lost")) >= 1
    assert len(heard.of("replica_lost")) >= 1
    # 166 parameters are cut at 80; replica 1 works on the last 83.
    assert {0: {0, 1}, 1: {1}} in seen
    assert all(there.get(1, set()) <= {1} for there in seen)


def listening(pid: int) -> set[int]:
    return {c.laddr.port for c in connections(pid) if c.status == psutil.CONN_LISTEN}


def connected(pid: int) -> set[int]:
    """Ports at the other end."""
    return {c.raddr.port for c in connections(pid) if c.status == psutil.CONN_ESTABLISHED}


def connections(pid: int) -> list[Any]:
    try:
        return psutil.Process(pid).net_connections()
    except psutil.NoSuchProcess:
        return []
