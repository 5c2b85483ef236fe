"""Gradients on the processor and, where there is one, on a GPU: the engine's promises hold."""

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed import Client
from torch import nn

from engine import checkpoint
from engine.clipping import with_clipping
from engine.config import (
    AdagradConfig,
    ClipConfig,
    ClusterConfig,
    DownpourConfig,
    MomentumConfig,
    SingleConfig,
    SynchronousConfig,
)
from engine.dask_train import train_downpour
from engine.device import NoGpuError, computing_device, device_of, on_device
from engine.inprocess import train_in_process
from engine.replay import replay
from engine.segment import Segment
from engine.single import train_single
from engine.synchronous import backend
from engine.synchronous.train import train_synchronous
from engine.torch_problem import TorchProblem
from tasks.cluster import open_cluster
from tests.engine.devices import DEVICES
from tests.engine.problems import RULES, classifier, data, network, rule_name
from tests.engine.rows import Meddler, StoppedByTestError, When, stop
from tests.engine.threaded import latest

CLUSTER = ClusterConfig(
    num_replicas=2,
    num_shards=2,
    threads_per_replica=1,
    heartbeat_interval_s=0.2,
    heartbeat_timeout_s=2.0,
)
IDENTITY = {"data": "points"}


def on(device: str, *, dropout: bool = True) -> TorchProblem:
    """The classifier on a device, with held-out data that stays in main memory."""
    linear, tanh, head = network().children()
    layers = [linear, tanh, nn.Dropout(0.5), head] if dropout else [linear, tanh, head]
    problem = classifier(nn.Sequential(*layers).to(device))
    points, classes = (tensor.to(device) for tensor in data())
    problem._measure = lambda module: {
        "error": float((module(points).argmax(1) != classes).float().mean())
    }
    return problem


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with open_cluster(CLUSTER) as client:
        yield client


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shared", [True, False])
def test_gradients_on_a_device_are_those_of_the_processor(tmp_path, device, shared):
    problem, reference = on(device, dropout=False), classifier()
    size = problem.layout.size
    segment = Segment(tmp_path / "memory", size, torch.float32, new=True)
    parameters = segment.parameters[0] if shared else torch.empty(size + 1)[1:]
    grad = segment.gradients[0] if shared else torch.empty(size + 1)[1:]
    expected = torch.empty(size)
    for payload in ((data()[0][:16], data()[1][:16]), (data()[0][16:], data()[1][16:])):
        for factor in (1.0, 2.0):
            parameters.copy_(problem.initial() * factor)
            grad.fill_(torch.nan)
            loss = problem.gradient_(parameters, payload, grad)
            assert loss == problem.loss(parameters, payload)
            assert loss == pytest.approx(reference.gradient_(parameters, payload, expected))
            torch.testing.assert_close(grad, expected)
    assert device_of(problem).type == device
    assert device_of(with_clipping(problem, ClipConfig(max_norm=1.0))).type == device


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("rule", RULES, ids=rule_name)
def test_a_single_run_resumes_on_a_device_to_the_same_bits(tmp_path, device, rule):
    factory = functools.partial(on, device)
    config = SingleConfig(minibatch_size=8, num_epochs=3, rule=rule)
    often = SingleConfig(minibatch_size=8, num_epochs=3, rule=rule, checkpoint_every_s=1e-9)
    whole = train_single(factory, config, tmp_path / "whole", IDENTITY)
    stopped = Meddler(When("checkpoint", 7, stop))
    with pytest.raises(StoppedByTestError):
        train_single(factory, often, tmp_path, IDENTITY, stopped)
    resumed = train_single(factory, config, tmp_path, IDENTITY)
    assert torch.equal(resumed.parameters, whole.parameters)
    assert resumed.parameters.device.type == "cpu"


@pytest.mark.parametrize("device", DEVICES)
def test_an_asynchronous_run_on_a_device_is_repeated_bit_for_bit(client, tmp_path, device):
    config = DownpourConfig(
        minibatch_size=4,
        num_epochs=6,
        validate_every_epochs=3.0,
        keep_checkpoints=99,
        record=True,
        n_fetch=2,
        n_push=3,
        rule=AdagradConfig(gamma=0.1),
    )
    factory = functools.partial(on, device)
    result = train_downpour(client, factory, config, CLUSTER, tmp_path, IDENTITY)
    start, end = checkpoint.read(tmp_path / "checkpoints" / "000000"), latest(tmp_path)
    vectors = [(start.read_shard(k), 0) for k in range(2)]
    versions = [shard.version for shard in end.shards]
    record = tmp_path / "record" / "000000"
    replayed = replay(factory(), config, record, vectors, versions)
    assert torch.equal(replayed, result.parameters)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_ranks", [1, 2])
def test_synchronous_ranks_on_a_device_apply_the_mean_gradient(client, tmp_path, device, num_ranks):
    rule = MomentumConfig(learning_rate=0.05)
    config = SynchronousConfig(minibatch_size=8, num_epochs=3, rule=rule)
    cluster = ClusterConfig(num_replicas=num_ranks, num_shards=2)
    results = [
        train_synchronous(
            client,
            functools.partial(on, where, dropout=False),
            config,
            cluster,
            tmp_path / where,
            IDENTITY,
        )
        for where in ("cpu", device)
    ]
    torch.testing.assert_close(results[1].parameters, results[0].parameters)


@pytest.mark.parametrize("device", DEVICES)
def test_one_replica_on_a_device_computes_the_bits_of_the_in_process_run(client, tmp_path, device):
    cluster = ClusterConfig(num_replicas=1, num_shards=2)
    config = DownpourConfig(minibatch_size=4, num_epochs=3, clip=ClipConfig(max_norm=0.5))
    factory = functools.partial(on, device)
    result = train_downpour(client, factory, config, cluster, tmp_path, IDENTITY)
    other = train_in_process(factory(), config, num_replicas=1, num_shards=2)
    assert torch.equal(result.parameters, other.parameters)


@pytest.mark.parametrize("device", DEVICES)
def test_auto_is_the_gpu_where_there_is_one(device):
    assert computing_device("cpu") == torch.device("cpu")
    assert computing_device("auto").type == DEVICES[-1]
    payload = {"a": [torch.ones(2), (torch.zeros(1), "b")], "c": 3}
    moved = on_device(payload, torch.device(device))
    assert moved["a"][0].device.type == moved["a"][1][0].device.type == device
    assert (moved["a"][1][1], moved["c"], type(moved["a"][1])) == ("b", 3, tuple)


def test_a_gpu_that_is_not_there_is_told_before_anything_starts(tmp_path):
    command = [sys.executable, "-m", "flows.train", "cluster.device=cuda", "algorithm.npush=2"]
    hidden = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run(command, cwd=tmp_path, env=hidden, capture_output=True, text=True)
    assert ended.returncode == 2
    assert "cluster.device=cuda, but torch" in ended.stderr
    assert "sees no GPU here: want device=auto or cpu" in ended.stderr
    assert "2 configuration errors" in ended.stderr
    assert not list(tmp_path.iterdir())


def test_without_a_gpu_cuda_is_refused_and_auto_is_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(NoGpuError, match="device=cuda, but torch"):
        computing_device("cuda")
    assert computing_device("auto") == torch.device("cpu")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((b"host GPU-1", b"host GPU-2"), "nccl"),
        ((b"host GPU-1", b"host GPU-1"), "gloo"),  # they share it
        ((b"host GPU-1", b"other GPU-1"), "nccl"),
        ((b"host GPU-1", b"cpu"), "gloo"),
        ((b"cpu", b"cpu"), "gloo"),
    ],
)
def test_all_ranks_agree_on_nccl_where_each_has_a_gpu_of_its_own(
    tmp_path, monkeypatch, names, expected
):
    agreed: dict[int, str] = {}
    own = threading.local()
    monkeypatch.setattr(backend, "_name", lambda device: own.name)

    def rank(index: int) -> None:
        own.name = names[index]
        store = dist.FileStore(str(tmp_path / "store"), 2)
        agreed[index] = backend.agreed_backend(store, index, 2, torch.device("cpu"))

    threads = [threading.Thread(target=rank, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert agreed == {0: expected, 1: expected}
