"""The link between a replica and a shard in another process, beside what one might use instead.

    python -m benchmarks.link

One shard of 16.8 million float32 parameters (64 MiB) on the same host. Rivals in the same run,
rounds alternating: memcpy (what shared memory cannot beat), a raw loopback socket, gloo, torch's
rpc, Dask's own comm and a Dask Actor.
A push is compared with the same work done in place: torch's fused Adagrad on the same vector.
"""

import multiprocessing as mp
import secrets
import shutil
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from distributed import Client, LocalCluster
from torch import Tensor

from benchmarks._figures import Figure, state
from benchmarks._link_rivals import Comm, Gloo, Rpc
from engine import memory
from engine.config import AdagradConfig
from engine.endpoint import Place, ShardEndpoint
from engine.frames import as_bytes
from engine.ledger import Progress
from engine.link import Directory, RemoteServer, ShardAddress, ShardLink
from engine.rules import make_rule
from engine.segment import Segment
from engine.shard import Applied, ParameterShard, Push
from engine.state import ShardState

SIZE = 1 << 24
NUM_BYTES = SIZE * 4
NUM_ROUNDS = 15
NUM_PINGS = 300
RULE = AdagradConfig(gamma=0.01, epsilon=1e-10)


def main() -> None:
    torch.set_num_threads(1)
    folder = memory.create_folder(secrets.token_hex(4))
    try:
        with _Ours(folder) as ours:
            state("link", _against_transports(ours) + _against_work(ours) + _against_actor(ours))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _against_transports(ours: "_Ours") -> list[Figure]:
    """Round trips and fetches beside what else carries bytes between two processes."""
    figures = []
    for name, rival, rival_name, goals in (
        ("socket", _RawSocket(), "raw socket", (0.1, 1.0)),
        ("gloo", Gloo(SIZE), "gloo send/recv", (1.0, 1.5)),
        ("rpc", Rpc(SIZE), "torch.distributed.rpc", (2.0, 3.0)),
        ("comm", Comm(SIZE), "distributed.comm", (2.0, 1.5)),
    ):
        pings = _alternate(NUM_PINGS, ours.ping, rival.ping)
        fetches = _alternate(NUM_ROUNDS, ours.fetch, rival.fetch)
        rival.close()
        figures += [
            _faster(f"round_trip_{name}", pings, rival_name, goals[0]),
            _speed(f"fetch_{name}", fetches, rival_name, goals[1]),
        ]
    return figures


def _against_work(ours: "_Ours") -> list[Figure]:
    """What no transport could save: the copy of a fetch, the arithmetic of a push."""
    target, source = torch.empty(SIZE), torch.ones(SIZE)
    fetches = _alternate(NUM_ROUNDS, ours.fetch, lambda: target.copy_(source))
    pushes = _alternate(NUM_ROUNDS, ours.push, _LocalAdagrad().push)
    return [
        _speed("fetch_memcpy", fetches, "memcpy", 0.7),
        _speed("push_adagrad", pushes, "memcpy + fused Adagrad, in place", 0.8),
    ]


def _against_actor(ours: "_Ours") -> list[Figure]:
    """The same shard as Dask offers it."""
    gradient = torch.ones(SIZE).numpy()
    with _dask() as client:
        actor: Any = client.submit(_Store, SIZE, actor=True).result()
        pings = _alternate(NUM_PINGS, ours.ping, lambda: actor.touch().result())
        fetches = _alternate(NUM_ROUNDS, ours.fetch, lambda: actor.fetch().result())
        pushes = _alternate(NUM_ROUNDS, ours.push, lambda: actor.push(gradient).result())
    return [
        _faster("round_trip_actor", pings, "Dask Actor", 5.0),
        _speed("fetch_actor", fetches, "Dask Actor", 2.0),
        _speed("push_actor", pushes, "Dask Actor, numpy Adagrad", 2.0),
    ]


def _alternate(
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


def _faster(name: str, times: tuple[float, float], rival_name: str, goal: float) -> Figure:
    ours_s, rival_s = times
    return Figure(name, "us", ours_s * 1e6, rival_s * 1e6, rival_name, goal, more_is_better=False)


def _speed(name: str, times: tuple[float, float], rival_name: str, goal: float) -> Figure:
    ours_s, rival_s = times
    gigabytes = NUM_BYTES / 1e9
    return Figure(name, "GB/s", gigabytes / ours_s, gigabytes / rival_s, rival_name, goal)


class _Process:
    """A process that serves something, ended with its context."""

    def __init__(self, serve: Callable[..., None], *args: object) -> None:
        context = mp.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, *args), daemon=True)
        self._process.start()

    def close(self) -> None:
        self.pipe.close()
        self._process.join(5)


class _Ours(_Process):
    """A replica's side of one shard served elsewhere."""

    def __init__(self, folder: Path) -> None:
        token = secrets.token_hex(8)
        super().__init__(_serve_shard, folder, token)
        host, port = self.pipe.recv()
        segment = Segment(folder / "replica", SIZE, torch.float32, new=True)
        segment.gradients[0].fill_(1.0)
        directory = Directory([ShardAddress(host, port, 1)])
        hello = {"token": token, "size": SIZE, "replica": 0, "incarnation": 1}
        self._server = RemoteServer(directory, segment, hello, [slice(0, SIZE)])
        shared = {"op": "hello", "segment": str(segment.path), "nonce": segment.nonce}
        self._link = ShardLink(0, directory, hello | shared)
        self._empty = segment.gradients[0][:0]
        self._sequence = 0

    def __enter__(self) -> "_Ours":
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


def _serve_shard(pipe: Connection, folder: Path, token: str) -> None:
    torch.set_num_threads(1)
    rule = make_rule(RULE)
    num_bytes = ShardState.num_bytes(SIZE, len(rule.slots), torch.float32)
    mapped = memory.create(folder / "state", num_bytes)
    shard_state = ShardState(mapped, SIZE, len(rule.slots), torch.float32)
    shard_state.fill(torch.ones(SIZE), [torch.zeros(SIZE)], version=0)
    shard = ParameterShard(shard_state, rule, epoch=1)
    place = Place(0, SIZE, SIZE, torch.float32)
    endpoint = ShardEndpoint(0, shard, place, "127.0.0.1", token, folder)
    pipe.send(endpoint.address)
    _wait_for_end(pipe)
    endpoint.close()


class _RawSocket(_Process):
    """The least that a socket can do: one byte there, one byte or the whole vector back."""

    def __init__(self) -> None:
        super().__init__(_serve_socket)
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


def _serve_socket(pipe: Connection) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    pipe.send(listener.getsockname())
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    source = as_bytes(torch.ones(SIZE))
    while request := sock.recv(1):
        sock.sendall(b"p" if request == b"p" else source)


class _LocalAdagrad:
    """The same update with no link at all: copy the gradient, then torch's fused Adagrad."""

    def __init__(self) -> None:
        self._values = torch.ones(SIZE)
        self._values.grad = torch.empty(SIZE)
        self._optimiser = torch.optim.Adagrad([self._values], lr=0.01, fused=True)
        self._gradient = torch.ones(SIZE)

    def push(self) -> None:
        assert self._values.grad is not None
        self._values.grad.copy_(self._gradient)
        self._optimiser.step()


@contextmanager
def _dask() -> Iterator[Client]:
    """A client of one worker; both have constructors without annotations."""
    make_cluster: Any = LocalCluster
    make_client: Any = Client
    with (
        make_cluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster,
        make_client(cluster, direct_to_workers=True) as client,
    ):
        yield client


class _Store:
    """The same shard as a Dask Actor, as one would write it."""

    def __init__(self, size: int) -> None:
        self._values: Tensor = torch.ones(size)
        self._squares: Tensor = torch.zeros(size)

    def touch(self) -> int:
        return 0

    def fetch(self) -> Any:
        return self._values.numpy()

    def push(self, gradient: Any) -> None:
        grad = torch.from_numpy(gradient)
        self._squares.addcmul_(grad, grad)
        self._values.addcdiv_(grad, self._squares.sqrt().add_(1e-10), value=-0.01)


def _wait_for_end(pipe: Connection) -> None:
    try:
        pipe.recv()
    except EOFError:
        return


if __name__ == "__main__":
    main()
