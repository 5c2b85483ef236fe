"""The link between two hosts: a replica and a shard in network namespaces of their own.

    python -m benchmarks.link_hosts

Needs root and iproute2 for the namespaces, which are removed at the end. One shard of 16.8 million
float32 parameters (64 MiB). The rival, in the same run, rounds alternating, is a raw socket over
the same pair of virtual Ethernet devices that carries the same bytes and does nothing else; our
pushes are applied by Adagrad, so they have a second rival that does the same work in place.
"""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from benchmarks._figures import state
from benchmarks._link_sides import (
    NUM_PINGS,
    NUM_ROUNDS,
    Ours,
    Place,
    RawSocket,
    alternate,
    enter,
    faster,
    speed,
)
from engine.run_memory import run_memory

#: Addresses that RFC 5737 keeps for documentation: they exist in our namespaces only.
SHARD_HOST, REPLICA_HOST = "192.0.2.1", "192.0.2.2"


def main() -> None:
    torch.set_num_threads(1)
    with run_memory(secrets.token_hex(4)) as folder, _two_hosts() as (shard_side, replica_side):
        enter(replica_side)
        place = Place(SHARD_HOST, shard_side)
        raw = RawSocket(place)
        with Ours(folder, place) as ours:
            pings = alternate(NUM_PINGS, ours.ping, raw.ping)
            fetches = alternate(NUM_ROUNDS, ours.fetch, raw.fetch)
            pushes = alternate(NUM_ROUNDS, ours.push, raw.push)
            works = alternate(NUM_ROUNDS, ours.push, raw.push_and_apply)
        raw.close()
    state(
        "link_hosts",
        [
            faster("round_trip", pings, "raw socket", 0.1),
            speed("fetch", fetches, "raw socket", 0.7),
            speed("push", pushes, "raw socket, nothing applied", 0.7),
            speed("push_adagrad", works, "raw socket + fused Adagrad, in place", 0.8),
        ],
    )


@contextmanager
def _two_hosts() -> Iterator[tuple[str, str]]:
    """Names of two namespaces joined by a pair of virtual devices."""
    token = secrets.token_hex(3)
    names, hosts = (f"vd-s{token}", f"vd-r{token}"), (SHARD_HOST, REPLICA_HOST)
    _ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
    try:
        for name, host in zip(names, hosts, strict=True):
            _ip("netns", "add", name)
            _ip("link", "set", name, "netns", name)
            _ip("-n", name, "addr", "add", f"{host}/24", "dev", name)
            _ip("-n", name, "link", "set", name, "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"ip {' '.join(arguments)}: {done.stderr.strip()} (this needs root)")


if __name__ == "__main__":
    main()
