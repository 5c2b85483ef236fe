"""A role whose coordinator hangs up, politely or with a reset, ends without an error."""

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.config import DownpourConfig, SgdConfig
from engine.connections import listen
from engine.frames import receive
from engine.replica_role import run_replica
from engine.run_spec import RunSpec
from engine.shard_role import serve_shard
from tests.engine.problems import classifier


def serve(spec: RunSpec) -> None:
    serve_shard(spec, 0, SgdConfig(), None, "worker")


def train(spec: RunSpec) -> None:
    run_replica(spec, 0, classifier, DownpourConfig(), "worker")


def spec_of(address: tuple[str, int], folder: Path) -> RunSpec:
    return RunSpec(
        coordinator=address,
        token="secret",
        host="127.0.0.1",
        memory=folder,
        checkpoints=folder,
        size=83,
        dtype=torch.float32,
        slices=(slice(0, 83),),
        heartbeat_interval_s=60.0,
    )


@pytest.mark.parametrize("role", [serve, train])
@pytest.mark.parametrize("reset", [False, True])
def test_a_coordinator_that_hangs_up_after_the_hello_is_no_error(
    tmp_path: Path, role: Callable[[RunSpec], None], reset: bool
):
    listener = listen("127.0.0.1")

    def greet_and_go() -> None:
        sock, _ = listener.accept()
        assert receive(sock)["op"] == "hello"
        listener.close()
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()

    coordinator = threading.Thread(target=greet_and_go)
    coordinator.start()
    role(spec_of(listener.getsockname(), tmp_path))
    coordinator.join()
