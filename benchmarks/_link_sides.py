"""Both ends of the link that the benchmarks measure, and of a raw socket beside it."""

import ctypes
import multiprocessing as mp
import os
import secrets
import socket
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks._figures import Figure
from engine import endpoint, memory
from engine.config import AdagradConfig
from engine.frames import as_bytes
from engine.ledger import Progress
from engine.link import Directory, RemoteServer, ShardAddress, ShardLink
from engine.push import Applied, Push
from engine.rules import make_rule
from engine.segment import Segment
from engine.shard import ParameterShard
from engine.state import ShardState

SIZE = 1 << 24
NUM_BYTES = SIZE * 4
NUM_ROUNDS = 15
NUM_PINGS = 300
RULE = AdagradConfig(gamma=0.01, epsilon=1e-10)


def alternate(
    num_rounds: int, ours: Callable[[], object], rival: Callable[[], object]
) -> tuple[float, float]:
    """Median seconds of both, taking turns; the first round does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(num_rounds + 1):
        for call, taken in zip((ours, rival), times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return statistics.median(times[0][1:]), statistics.median(times[1][1:])


def faster(name: str, times: tuple[float, float], rival_name: str, goal: float) -> Figure:
    ours_s, rival_s = times
    return Figure(name, "us", ours_s * 1e6, rival_s * 1e6, rival_name, goal, more_is_better=False)


def speed(name: str, times: tuple[float, float], rival_name: str, goal: float) -> Figure:
    ours_s, rival_s = times
    gigabytes = NUM_BYTES / 1e9
    return Figure(name, "GB/s", gigabytes / ours_s, gigabytes / rival_s, rival_name, goal)


class Place(NamedTuple):
    """Where a server listens: its address and, for a host of its own, the network namespace."""

    host: str = "127.0.0.1"
    namespace: str | None = None


HERE = Place()


def enter(namespace: str) -> None:
    """Move this thread, and every process that it starts, to a network namespace."""
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
            raise OSError(ctypes.get_errno(), "setns", namespace)
    finally:
        os.close(descriptor)


class _Process:
    """A process that serves something, ended with its context."""

    def __init__(self, serve: Callable[..., None], place: Place, *args: object) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (serve, theirs, place, *args)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()

    def close(self) -> None:
        self.pipe.close()
        self._process.join(5)


class Ours(_Process):
    """A replica's side of one shard served elsewhere."""

    def __init__(self, folder: Path, place: Place = HERE) -> None:
        token = secrets.token_hex(8)
        super().__init__(_serve_shard, place, folder, token)
        host, port = self.pipe.recv()
        segment = Segment(folder / "replica", SIZE, torch.float32, new=True)
        segment.gradients[0].fill_(1.0)
        if place.namespace:
            segment.path = folder / "on another host"  # which cannot map our memory
        directory = Directory([ShardAddress(host, port, 1)])
        hello = {"token": token, "size": SIZE, "replica": 0, "incarnation": 1}
        self._server = RemoteServer(directory, segment, hello, [slice(0, SIZE)])
        shared = {"op": "hello", "segment": str(segment.path), "nonce": segment.nonce}
        self._link = ShardLink(0, directory, hello | shared)
        self._empty = segment.gradients[0][:0]
        self._sequence = 0

    def __enter__(self) -> "Ours":
        return self

    def __exit__(self, *error: object) -> None:
        self._server.close()
        self._link.close()
        self.close()

    def ping(self) -> None:
        self._link.send({"op": "ping"}, self._empty)
        self._link.receive({"op": "ping"}, self._empty, None)

    def fetch(self) -> None:
        self._server.fetch(0)

    def push(self) -> None:
        self._sequence += 1
        push = Push(0, 1, self._sequence, 0, Progress(1, self._sequence))
        (answer,) = self._server.push(0, [push])
        assert isinstance(answer, Applied)


def _serve(serve: Callable[..., None], pipe: Connection, place: Place, *args: object) -> None:
    torch.set_num_threads(1)
    if place.namespace:
        enter(place.namespace)
    serve(pipe, place.host, *args)


def _serve_shard(pipe: Connection, host: str, folder: Path, token: str) -> None:
    rule = make_rule(RULE)
    num_bytes = ShardState.num_bytes(SIZE, len(rule.slots), torch.float32)
    mapped = memory.create(folder / "state", num_bytes)
    shard_state = ShardState(mapped, SIZE, len(rule.slots), torch.float32)
    shard_state.fill(torch.ones(SIZE), [torch.zeros(SIZE)], version=0)
    shard = ParameterShard(shard_state, rule, epoch=1)
    place = endpoint.Place(0, SIZE, SIZE, torch.float32)
    server = endpoint.ShardEndpoint(0, shard, place, host, token, folder)
    pipe.send(server.address)
    _wait_for_end(pipe)
    server.close()


class LocalAdagrad:
    """A shard's work with nothing around it: torch's fused Adagrad on `gradient`, in place."""

    def __init__(self) -> None:
        values = torch.ones(SIZE)
        self.gradient = values.grad = torch.zeros(SIZE)
        self._optimiser = torch.optim.Adagrad([values], lr=0.01, fused=True)

    def step(self) -> None:
        self._optimiser.step()


class RawSocket(_Process):
    """The least that a socket can do: one byte there, one byte or the whole vector back."""

    def __init__(self, place: Place = HERE) -> None:
        super().__init__(_serve_socket, place)
        self._sock = socket.create_connection(self.pipe.recv())
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._target = as_bytes(torch.empty(SIZE))

    def close(self) -> None:
        self._sock.close()
        super().close()

    def ping(self) -> None:
        self._sock.sendall(b"p")
        self._sock.recv(1)

    def fetch(self) -> None:
        self._sock.sendall(b"f")
        received = 0
        while received < NUM_BYTES:
            received += self._sock.recv_into(self._target[received:])

    def push(self, request: bytes = b"g") -> None:
        self._sock.sendall(request)
        self._sock.sendall(self._target)
        self._sock.recv(1)

    def push_and_apply(self) -> None:
        self.push(b"a")


def _serve_socket(pipe: Connection, host: str) -> None:
    listener = socket.create_server((host, 0))
    pipe.send(listener.getsockname())
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    adagrad = LocalAdagrad()
    source, target = as_bytes(torch.ones(SIZE)), as_bytes(adagrad.gradient)
    while request := sock.recv(1):
        received = 0 if request in b"ga" else NUM_BYTES
        while received < NUM_BYTES:
            received += sock.recv_into(target[received:])
        if request == b"a":
            adagrad.step()
        sock.sendall(source if request == b"f" else b"p")


def _wait_for_end(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        return
