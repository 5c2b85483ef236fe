"""The link between a replica and a shard in another process, beside what one might use instead.

    python -m benchmarks.link

One shard of 16.8 million float32 parameters (64 MiB) on the same host. Rivals in the same run,
rounds alternating: memcpy (what shared memory cannot beat), a raw loopback socket, gloo, torch's
rpc, Dask's own comm and a Dask Actor.
A push is compared with the same work done in place: torch's fused Adagrad on the same vector.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from distributed import Client, LocalCluster
from torch import Tensor

from benchmarks._figures import Figure, state
from benchmarks._link_rivals import Comm, Gloo, Rpc
from benchmarks._link_sides import (
    NUM_PINGS,
    NUM_ROUNDS,
    SIZE,
    LocalAdagrad,
    Ours,
    RawSocket,
    alternate,
    faster,
    speed,
)
from engine.run_memory import run_memory


def main() -> None:
    torch.set_num_threads(1)
    with run_memory(secrets.token_hex(4)) as folder, Ours(folder) as ours:
        state("link", _against_transports(ours) + _against_work(ours) + _against_actor(ours))


def _against_transports(ours: Ours) -> list[Figure]:
    """Round trips and fetches beside what else carries bytes between two processes."""
    figures = []
    for name, rival, rival_name, goals in (
        ("socket", RawSocket(), "raw socket", (0.1, 1.0)),
        ("gloo", Gloo(SIZE), "gloo send/recv", (1.0, 1.5)),
        ("rpc", Rpc(SIZE), "torch.distributed.rpc", (2.0, 3.0)),
        ("comm", Comm(SIZE), "distributed.comm", (2.0, 1.5)),
    ):
        pings = alternate(NUM_PINGS, ours.ping, rival.ping)
        fetches = alternate(NUM_ROUNDS, ours.fetch, rival.fetch)
        rival.close()
        figures += [
            faster(f"round_trip_{name}", pings, rival_name, goals[0]),
            speed(f"fetch_{name}", fetches, rival_name, goals[1]),
        ]
    return figures


def _against_work(ours: Ours) -> list[Figure]:
    """What no transport could save: the copy of a fetch, the arithmetic of a push."""
    target, source = torch.empty(SIZE), torch.ones(SIZE)
    local = LocalAdagrad()

    def push() -> None:
        local.gradient.copy_(source)
        local.step()

    fetches = alternate(NUM_ROUNDS, ours.fetch, lambda: target.copy_(source))
    pushes = alternate(NUM_ROUNDS, ours.push, push)
    return [
        speed("fetch_memcpy", fetches, "memcpy", 0.7),
        speed("push_adagrad", pushes, "memcpy + fused Adagrad, in place", 0.8),
    ]


def _against_actor(ours: Ours) -> list[Figure]:
    """The same shard as Dask offers it."""
    gradient = torch.ones(SIZE).numpy()
    with _dask() as client:
        actor: Any = client.submit(_Store, SIZE, actor=True).result()
        pings = alternate(NUM_PINGS, ours.ping, lambda: actor.touch().result())
        fetches = alternate(NUM_ROUNDS, ours.fetch, lambda: actor.fetch().result())
        pushes = alternate(NUM_ROUNDS, ours.push, lambda: actor.push(gradient).result())
    return [
        faster("round_trip_actor", pings, "Dask Actor", 5.0),
        speed("fetch_actor", fetches, "Dask Actor", 2.0),
        speed("push_actor", pushes, "Dask Actor, numpy Adagrad", 2.0),
    ]


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


if __name__ == "__main__":
    main()
