"""Shards served on real sockets in this process, behind proxies."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.config import RuleConfig, TlsConfig
from engine.endpoint import Place, ShardEndpoint
from engine.layout import Layout
from engine.ledger import Progress
from engine.link import Directory, RemoteServer, ShardAddress
from engine.push import Push
from engine.rules import make_rule
from engine.segment import Segment
from engine.shard import ParameterShard
from engine.state import ShardState
from tests.engine.proxy import Proxy
from tests.engine.shards import RULE, vector

TOKEN = "the run's secret"


@dataclass
class Serving:
    """Shards of one vector behind proxies, and a replica's link to them."""

    endpoints: list[ShardEndpoint]
    proxies: list[Proxy]
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
    tls: TlsConfig | None = None,
) -> Iterator[Serving]:
    """Serve vector(size, seed=0). Without `same_host` the replica's memory cannot be opened."""
    slices = Layout(("all",), ((size,),)).slices(num_shards)
    endpoints = [
        _endpoint(folder, index, part, size, rule, tls) for index, part in enumerate(slices)
    ]
    proxies = [Proxy(endpoint.address) for endpoint in endpoints]
    directory = Directory([ShardAddress(*proxy.address, 1) for proxy in proxies], tls)
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
    folder: Path,
    index: int,
    part: slice,
    size: int,
    rule_config: RuleConfig,
    tls: TlsConfig | None,
) -> ShardEndpoint:
    rule, values = make_rule(rule_config), vector(size, seed=0)[part]
    state = ShardState.in_memory(values.numel(), len(rule.slots), values.dtype)
    state.fill(values, [torch.zeros_like(values) for _ in rule.slots], version=0)
    place = Place(part.start, values.numel(), size, values.dtype)
    shard = ParameterShard(state, rule, epoch=1, max_staleness=50)
    return ShardEndpoint(index, shard, place, "127.0.0.1", TOKEN, folder, tls=tls)
