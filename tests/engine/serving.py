"""Shards served on real sockets in this process, and a proxy that loses replies."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.config import RuleConfig
from engine.endpoint import Place, ShardEndpoint
from engine.layout import Layout
from engine.ledger import Progress
from engine.link import Directory, RemoteServer, ShardAddress
from engine.rules import make_rule
from engine.segment import Segment
from engine.shard import ParameterShard, Push
from engine.state import ShardState
from tests.engine.shards import RULE, vector

TOKEN = "the run's secret"


class LossyProxy:
    """Passes connections on to a shard. Once `lose_next_reply` is called, it reads one more reply
    and hangs up instead of passing it on.
    """

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.replies_lost = 0
        self._upstream = upstream
        self._lose = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        return self._listener.getsockname()

    def lose_next_reply(self) -> None:
        self._lose.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for sock in self._sockets:
            _hang_up(sock)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._upstream)
            self._sockets += [near, far]
            threading.Thread(target=self._pass_on, args=(near, far, False)).start()
            threading.Thread(target=self._pass_on, args=(far, near, True)).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        try:
            while data := source.recv(65_536):
                if replies and self._lose.is_set():
                    self._lose.clear()
                    self.replies_lost += 1
                    break
                sink.sendall(data)
        except OSError:
            pass  # the other direction has ended
        _hang_up(source)
        _hang_up(sink)


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return


@dataclass
class Serving:
    """Shards of one vector behind proxies, and a replica's link to them."""

    endpoints: list[ShardEndpoint]
    proxies: list[LossyProxy]
    directory: Directory
    segment: Segment
    hello: dict[str, Any]
    slices: tuple[slice, ...]
    server: RemoteServer

    @property
    def shards(self) -> list[ParameterShard]:
        return [endpoint.shard for endpoint in self.endpoints]

    def parameters(self) -> torch.Tensor:
        """What the shards hold now, shape (P,)."""
        return torch.cat([shard.copy()[0] for shard in self.shards])

    def push(self, sequence: int, slot: int = 0) -> list[Any]:
        """Push what lies in gradient slot `slot`."""
        return self.server.push(slot, self._pushes(sequence))

    def exchange(self, sequence: int, buffer: int) -> tuple[list[Any], list[int]]:
        """Push what lies in gradient slot 0 and fetch into `buffer`."""
        return self.server.exchange(0, self._pushes(sequence), buffer)

    def _pushes(self, sequence: int) -> list[Push]:
        identity = (self.hello["replica"], self.hello["incarnation"])
        return [Push(*identity, sequence, 0, Progress(1, sequence), 1.0)] * len(self.slices)


@contextmanager
def serving(
    folder: Path,
    *,
    size: int = 100,
    num_shards: int = 2,
    rule: RuleConfig = RULE,
    same_host: bool = True,
) -> Iterator[Serving]:
    """Serve vector(size, seed=0). Without `same_host` the replica's memory cannot be opened."""
    slices = Layout(("all",), ((size,),)).slices(num_shards)
    endpoints = [_endpoint(folder, index, slices[index], size, rule) for index in range(num_shards)]
    proxies = [LossyProxy(endpoint.address) for endpoint in endpoints]
    directory = Directory([ShardAddress(*proxy.address, 1) for proxy in proxies])
    segment = Segment(folder / "segment", size, torch.float32, new=True)
    if not same_host:
        segment.path = folder / "on another host"
    hello = {"token": TOKEN, "size": size, "replica": 0, "incarnation": 1}
    server = RemoteServer(directory, segment, hello, slices)
    try:
        yield Serving(endpoints, proxies, directory, segment, hello, slices, server)
    finally:
        server.close()
        for closing in (*proxies, *endpoints):
            closing.close()


def _endpoint(
    folder: Path, index: int, part: slice, size: int, rule_config: RuleConfig
) -> ShardEndpoint:
    rule, values = make_rule(rule_config), vector(size, seed=0)[part]
    state = ShardState.in_memory(values.numel(), len(rule.slots), values.dtype)
    state.fill(values, [torch.zeros_like(values) for _ in rule.slots], version=0)
    place = Place(part.start, values.numel(), size, values.dtype)
    shard = ParameterShard(state, rule, epoch=1, max_staleness=50)
    return ShardEndpoint(index, shard, place, "127.0.0.1", TOKEN, folder)
