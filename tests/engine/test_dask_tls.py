"""A whole Downpour run over TLS: Dask's connections, the coordinator's and the shards'."""

import functools
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from distributed import Client

from engine import replica_role
from engine.config import ClusterConfig, DownpourConfig, MomentumConfig
from engine.dask_train import train_downpour
from engine.inprocess import train_in_process
from engine.link import ShardLink
from engine.problem import Problem
from tasks.cluster import open_cluster
from tests.engine.certificates import Authority
from tests.engine.problems import NUM_SAMPLES, classifier
from tests.engine.rows import Listener
from tests.engine.test_tls import hangs_up

pytestmark = pytest.mark.dask
#: None of those that are served without TLS, and yet of this machine.
HOST = "127.0.0.2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def authority(folder) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def cluster(authority) -> ClusterConfig:
    tls = authority.issue("member")
    return ClusterConfig(host=HOST, num_replicas=1, num_shards=2, tls=tls)


@pytest.fixture(scope="module")
def client(cluster) -> Iterator[Client]:
    with open_cluster(cluster) as client:
        yield client


def apart(folder: str) -> Problem:
    """A problem whose replica's memory the shards cannot find, as if it were on another host.

    Each connection to a shard leaves a file in `folder` that tells whether it shares memory.
    """
    replica_role.Segment = functools.partial(elsewhere, replica_role.Segment)
    connect = ShardLink._connect

    def connect_and_tell(link: ShardLink) -> None:
        connect(link)
        (Path(folder) / f"shared-{link.shared}").touch()

    ShardLink._connect = connect_and_tell
    return classifier()


def elsewhere(segment_type, path, *args, **options):
    segment = segment_type(path, *args, **options)
    segment.path = path.with_name("on another host")
    return segment


def test_downpour_over_tls_computes_the_bits_of_the_in_process_run(client, cluster, tmp_path):
    heard = Listener()
    settings = DownpourConfig(
        minibatch_size=4, num_epochs=4, validate_every_epochs=99, rule=MomentumConfig()
    )
    factory = functools.partial(apart, str(tmp_path))
    result = train_downpour(client, factory, settings, cluster, tmp_path, {}, heard)
    other = train_in_process(classifier(), settings, num_replicas=1, num_shards=2)
    assert torch.equal(result.parameters, other.parameters)
    assert result.num_samples == 4 * NUM_SAMPLES
    assert [path.name for path in tmp_path.glob("shared-*")] == ["shared-False"]
    assert not heard.of("replica_lost")


def listening(client: Client) -> set[tuple[str, int]]:
    """Addresses on which the cluster's processes accept connections, but for Dask's own pages,
    which are on loopback.
    """
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    found = {
        tuple(connection.laddr)
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    info = client.scheduler_info(n_workers=-1)
    pages = {info["services"].get("dashboard")}
    pages |= {worker["services"].get("dashboard") for worker in info["workers"].values()}
    return found - {("127.0.0.1", page) for page in pages}


def test_every_port_of_the_cluster_refuses_who_has_no_certificate(client, authority):
    ports = listening(client)
    assert len(ports) >= 2 * len(client.scheduler_info(n_workers=-1)["workers"]) + 1
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority.file)
    for address in ports:
        assert address[0] == HOST
        with (
            socket.create_connection(address, timeout=5) as plain,
            context.wrap_socket(plain) as sock,
        ):
            assert hangs_up(sock)


def test_a_cluster_without_its_files_is_refused_before_a_process_starts(cluster, tmp_path):
    assert cluster.tls is not None
    missing = tmp_path / "nowhere.pem"
    tls = {name: getattr(cluster.tls, name) for name in ("ca_file", "certificate_file")} | {
        "key_file": missing
    }
    lacking = ClusterConfig(num_replicas=1, num_shards=1, tls=tls)
    before = len(psutil.Process().children(recursive=True))
    with (
        pytest.raises(ValueError, match=r"tls.key_file=.*nowhere.pem: there is no such file"),
        open_cluster(lacking),
    ):
        pass
    assert len(psutil.Process().children(recursive=True)) == before
