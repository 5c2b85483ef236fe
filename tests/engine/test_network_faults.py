"""What networks do to a whole run, and to one connection: nothing is lost, nothing doubled."""

import os
import random
import socket
import struct
import threading
import time
import tracemalloc
from dataclasses import replace

import pytest
import torch
from torch import nn

from engine import endpoint, training
from engine.config import ClusterConfig, DownpourConfig
from engine.connections import connect
from engine.endpoint import ShardEndpoint
from engine.frames import receive, send
from engine.problem import ProblemFactory
from engine.silence import Silence
from engine.torch_problem import TorchProblem
from tests.engine.problems import NUM_SAMPLES, UNIT_SIZES, classifier
from tests.engine.proxy import Proxy
from tests.engine.rows import Listener, Meddler, Row, When
from tests.engine.serving import Serving, serving
from tests.engine.shards import vector
from tests.engine.threaded import ThreadedRun, latest, threaded_run

CONFIG = DownpourConfig(minibatch_size=4, num_epochs=15, validate_every_epochs=99)
NUM_MINIBATCHES = CONFIG.num_epochs * sum(-(-size // 4) for size in UNIT_SIZES)


class Network:
    """Proxies between all replicas and all shards of a run, made as the shards appear. They share
    no memory either.
    """

    def __init__(self, monkeypatch, **slow: float) -> None:
        self.proxies: dict[tuple[str, int], Proxy] = {}
        own_address = ShardEndpoint.address.fget

        def address(server: ShardEndpoint) -> tuple[str, int]:
            own = own_address(server)
            if own not in self.proxies:
                self.proxies[own] = Proxy(own, **slow)
            return self.proxies[own].address

        monkeypatch.setattr(ShardEndpoint, "address", property(address))
        monkeypatch.setattr(endpoint, "_share", lambda *_: None)

    def close(self) -> None:
        for proxy in self.proxies.values():
            proxy.close()


@pytest.fixture
def network(monkeypatch):
    network = Network(monkeypatch)
    yield network
    network.close()


def finished_whole(run: ThreadedRun, folder) -> None:
    """Every sample counts once, every mini-batch was applied once by every shard."""
    final = run.drive()
    assert final is not None
    assert final.num_counted == CONFIG.num_epochs * NUM_SAMPLES
    assert [shard.version for shard in latest(folder).shards] == [NUM_MINIBATCHES] * 2


@pytest.mark.parametrize("hang_up", [False, True], ids=["silent", "connections lost"])
def test_a_partition_of_five_seconds_heals_by_itself(tmp_path, network, hang_up):
    healed: list[int] = []

    def part(_: Row) -> None:
        (proxy, _other) = network.proxies.values()
        proxy.part()

        def heal() -> None:
            if hang_up:
                proxy.hang_up()
            proxy.heal()
            healed.append(len(heard))

        threading.Timer(5.0, heal).start()

    heard = Meddler(When("progress", 1, part))
    with threaded_run(tmp_path, CONFIG, heard) as run:
        run.start_all()
        finished_whole(run, tmp_path)
    assert healed  # it fell into the run, not behind it
    assert not heard.of("replica_lost")
    assert not heard.of("shard_lost")


SHORT = replace(CONFIG, num_epochs=2)
#: Heartbeats and their limit have the usual ratio, 1 to 8, and are five times as short.
TIGHT = ClusterConfig(heartbeat_interval_s=0.2, heartbeat_timeout_s=1.6)


def finished_without_a_timeout(
    monkeypatch, folder, config, factory: ProblemFactory = classifier, **slow: float
) -> Network:
    """Train over slow links, the coordinator's too; nobody is taken for dead."""
    ended: list[int] = []
    monkeypatch.setattr(training, "end_process", ended.append)
    network = Network(monkeypatch, **slow)
    heard = Listener()
    with threaded_run(folder, config, heard, factory=factory) as run:
        coordinator = Proxy(run.server.address, **slow)
        run.training._coordinator._roster.silence = Silence(TIGHT)
        run.spec = replace(
            run.spec,
            coordinator=coordinator.address,
            heartbeat_interval_s=TIGHT.heartbeat_interval_s,
        )
        run.start_all()
        final = run.drive()
    coordinator.close()
    network.close()
    assert final is not None
    assert final.num_counted == config.num_epochs * NUM_SAMPLES
    assert not ended
    assert not heard.of("replica_lost")
    assert not heard.of("shard_lost")
    return network


def test_fifty_milliseconds_each_way_fire_no_timeout(tmp_path, monkeypatch):
    finished_without_a_timeout(monkeypatch, tmp_path, SHORT, delay_s=0.05)


def wide_classifier() -> TorchProblem:
    """60,003 parameters."""
    return classifier(nn.Sequential(nn.Linear(6, 6000), nn.ReLU(), nn.Linear(6000, 3)))


def test_one_megabit_a_second_fires_no_timeout_though_an_exchange_takes_longer_than_the_limit(
    tmp_path, monkeypatch
):
    config = replace(CONFIG, minibatch_size=30, num_epochs=1)
    slow = {"delay_s": 0.05, "bits_per_s": 1e6}
    network = finished_without_a_timeout(monkeypatch, tmp_path, config, wide_classifier, **slow)
    num_values = wide_classifier().layout.size
    num_shards = len(network.proxies)
    exchange_s = 2 * 32 * num_values / num_shards / slow["bits_per_s"]
    assert exchange_s > TIGHT.heartbeat_timeout_s
    assert all(len(proxy.passed) > 4 * num_values for proxy in network.proxies.values())


def test_a_run_needs_no_ipv4(tmp_path):
    with threaded_run(tmp_path, SHORT, Listener(), host="::1") as run:
        assert run.server.address[0] == "::1"
        run.start_all()
        final = run.drive()
    assert final is not None
    assert final.num_counted == 2 * NUM_SAMPLES


@pytest.fixture
def link(tmp_path):
    """Two shards on another host."""
    with serving(tmp_path, size=2000, same_host=False) as link:
        yield link


def test_when_only_the_answers_are_lost_nothing_is_applied_twice(link):
    random_moments = random.Random(4)
    parted = 0
    for sequence in range(1, 31):
        link.segment.gradients[0].copy_(vector(2000, sequence))
        if random_moments.random() < 0.4:
            proxy = random_moments.choice(link.proxies)
            shard = link.shards[link.proxies.index(proxy)]
            proxy.part(requests=False)
            threading.Thread(target=lose_answer, args=(proxy, shard, sequence)).start()
            parted += 1
        link.push(sequence)
        assert [shard.version for shard in link.shards] == [sequence] * 2
    assert parted > 5


def lose_answer(proxy: Proxy, shard, version: int) -> None:
    """Once the push is applied, end the connection with its answer still on the way."""
    deadline = time.monotonic() + 5
    while shard.version < version and time.monotonic() < deadline:
        time.sleep(0.001)
    proxy.hang_up()
    proxy.heal()


@pytest.mark.parametrize("replies", [False, True], ids=["request", "reply"])
@pytest.mark.parametrize("after", [0, 3, 28, 100, 2500])
def test_a_reset_in_mid_message_costs_one_attempt(link, after, replies):
    link.exchange(1, buffer=0)
    link.proxies[0].reset_after(after, replies=replies)
    link.segment.gradients[0].copy_(vector(2000, 2))
    answers, versions = link.exchange(2, buffer=0)
    assert link.proxies[0].resets == 1
    assert [answer.duplicate for answer in answers] == [replies, False]
    assert versions == [2, 2]
    assert torch.equal(link.segment.parameters[0], link.parameters())


def hello(link: Serving) -> dict:
    return {"op": "hello", **link.hello, "replica": 1, "segment": "none", "nonce": ""}


def test_a_hostile_length_costs_no_memory_and_ends_the_connection(link):
    tracemalloc.start()
    try:
        for magic in (b"VDF2", b"\x00\x00\x00\x00"):
            with connect(link.endpoints[0].address, 5.0) as sock:
                send(sock, hello(link))
                assert receive(sock)["op"] == "welcome"
                sock.settimeout(10.0)
                sock.sendall(struct.pack("<4sIQII", magic, 2**31, 2**40, 0, 0))
                with pytest.raises(ConnectionError):
                    receive(sock)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert link.server.fetch(0) == [0, 0]


def test_half_a_push_from_a_replica_that_falls_silent_changes_nothing_and_blocks_nobody(link):
    whole = link_bytes(link)
    with connect(link.endpoints[0].address, 5.0) as half_open:
        send(half_open, hello(link))
        receive(half_open)
        half_open.sendall(whole[: len(whole) // 2])
        for sequence in range(1, 6):
            link.push(sequence)
        assert link.shards[0].version == 5
        half_open.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert link.server.fetch(0) == [5, 5]
    assert torch.isfinite(link.parameters()).all()


def link_bytes(link: Serving) -> bytes:
    """A push as it goes over the wire."""
    near, far = socket.socketpair()
    with near, far:
        message = {"op": "push", "slot": 0, "sequence": 1, "fetched_version": 0}
        send(near, message | {"progress": [1, 1], "scale": 1.0}, os.urandom(4000))
        return far.recv(8192)
