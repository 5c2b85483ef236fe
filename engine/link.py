"""A replica's side of the connections to the parameter shards."""

import logging
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from engine.config import TlsConfig
from engine.connections import connect
from engine.frames import Message, as_bytes, receive, send
from engine.push import Applied, Push
from engine.segment import Segment

log = logging.getLogger(__name__)
CONNECT_TIMEOUT_S = 5.0
_RETRY_S = 0.2
#: Where the last reply took less, the next one is waited for awake, for so long at most: to wake a
#: core that has gone to sleep takes longer than a small network's shard.
_AWAKE_S = 200e-6


class StoppedError(Exception):
    """The run is over, or this replica's life in it: nobody will serve the request."""


class Refused(NamedTuple):
    """A shard's refusal of a push: the name of the error and its message."""

    error: str
    message: str


class ShardAddress(NamedTuple):
    """Where a shard is served, and under which epoch."""

    host: str
    port: int
    epoch: int


class Directory:
    """The shards' newest addresses as the coordinator announces them; safe for threads."""

    def __init__(self, addresses: Sequence[ShardAddress], tls: TlsConfig | None = None) -> None:
        self.tls = tls
        self._addresses = list(addresses)
        self._changed = threading.Condition()
        self._stopped = False

    def move(self, shard: int, address: ShardAddress) -> None:
        """A successor serves `shard` now."""
        with self._changed:
            self._addresses[shard] = address
            self._changed.notify_all()

    def stop(self) -> None:
        """Let everybody who waits or asks fail with StoppedError."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def look_up(self, shard: int, *, wait_s: float = 0.0, failed_epoch: int = 0) -> ShardAddress:
        """The shard's address; waits up to `wait_s` for an epoch above `failed_epoch`."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopped or self._addresses[shard].epoch > failed_epoch, wait_s
            )
            if self._stopped:
                raise StoppedError(f"stopped while asking for shard {shard}")
            return self._addresses[shard]


class ShardLink:
    """One connection to one shard, made anew whenever it breaks."""

    def __init__(self, shard: int, directory: Directory, hello: Message) -> None:
        self._shard = shard
        self._directory = directory
        self._hello = hello
        self._sock: socket.socket | None = None
        self._epoch = 0
        self.shared = False
        self._stays_awake = False

    def send(self, message: Message, payload: Tensor) -> None:
        """Send a request; a broken connection is noticed by `receive`, which sends it again."""
        try:
            self._send(message, payload)
        except OSError as error:
            self._drop(error)

    def receive(self, message: Message, payload: Tensor, into: Tensor | None) -> Message:
        """The reply to `message`, which is sent again over new connections until one answers."""
        while True:
            try:
                if self._sock is None:
                    self._send(message, payload)
                return self._receive(into)
            except OSError as error:
                self._drop(error)
                self._directory.look_up(self._shard, wait_s=_RETRY_S, failed_epoch=self._epoch)

    def close(self) -> None:
        """Drop the connection."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _send(self, message: Message, payload: Tensor) -> None:
        if self._sock is None:
            self._connect()
        assert self._sock is not None
        inline = payload.numel() and not self.shared
        send(self._sock, message, as_bytes(payload) if inline else b"")

    def _receive(self, into: Tensor | None) -> Message:
        assert self._sock is not None
        start = time.perf_counter()
        if self._stays_awake:
            _watch(self._sock, start + _AWAKE_S)
        reply = receive(self._sock, as_bytes(into) if into is not None else None)
        self._stays_awake = self.shared and time.perf_counter() - start < _AWAKE_S
        return reply

    def _connect(self) -> None:
        host, port, self._epoch = self._directory.look_up(self._shard)
        sock = connect((host, port), CONNECT_TIMEOUT_S, self._directory.tls)
        try:
            send(sock, self._hello)
            welcome = receive(sock)
            if welcome["op"] != "welcome":
                raise ValueError(f"shard {self._shard} refused: {welcome.get('message')}")
        except BaseException:
            sock.close()
            raise
        self.shared = bool(welcome["shared"])
        self._sock = sock

    def _drop(self, error: OSError) -> None:
        log.info("shard=%d epoch=%d connection lost: %s", self._shard, self._epoch, error)
        self.close()


def _watch(sock: socket.socket, end: float) -> None:
    """Look for something to receive until `end`.

    It keeps the core: given away (`sched_yield`), the scheduler may give it to others for a slice.
    """
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while not poll.poll(0) and time.perf_counter() < end:
        pass


class RemoteServer:
    """A replica's shards together: vectors in, vectors out, of which each has its slice.

    Fetches and pushes use connections of their own, so each may have its own thread.
    """

    def __init__(
        self,
        directory: Directory,
        segment: Segment,
        hello: dict[str, Any],
        slices: Sequence[slice],
        shards: Sequence[int] | None = None,
    ) -> None:
        """Connect to a shard when it is first asked.

        Args:
            slices: where all shards cut the vector.
            shards: those to talk to, in the order of all that goes in or comes out; None: all.
        """
        shards = range(len(slices)) if shards is None else shards
        self._segment = segment
        self._slices = [slices[shard] for shard in shards]
        hello = hello | {"op": "hello", "segment": str(segment.path), "nonce": segment.nonce}
        self._fetch_links = [ShardLink(k, directory, hello | {"shard": k}) for k in shards]
        self._push_links = [ShardLink(k, directory, hello | {"shard": k}) for k in shards]
        self._exchanged: list[tuple[ShardLink, Message, Tensor]] = []

    def fetch(self, buffer: int) -> list[int]:
        """Fill parameter buffer `buffer`; return the version of each shard's slice."""
        message: Message = {"op": "fetch", "buffer": buffer}
        nothing = self._segment.gradients[0][:0]
        requests = [(link, message, nothing) for link in self._fetch_links]
        return [int(reply["version"]) for reply in self._ask(requests, buffer)]

    def push(self, slot: int, pushes: Sequence[Push]) -> list[Applied | Refused]:
        """Push gradient slot `slot`, a Push for each shard; return each shard's answer."""
        return [_answer(reply) for reply in self._ask(self._push_requests(slot, pushes), None)]

    def exchange(
        self, slot: int, pushes: Sequence[Push], buffer: int
    ) -> tuple[list[Applied | Refused], list[int]]:
        """Push slot `slot` and fetch into `buffer` in one round trip; the fetch sees the push."""
        requests = self._push_requests(slot, pushes, buffer=buffer)
        replies = list(self._ask(requests, buffer))
        self._exchanged = self._push_requests(slot, pushes)
        return [_answer(r) for r in replies], [int(r["fetched_version"]) for r in replies]

    def settle(self, answers: Sequence[Applied | Refused]) -> list[Applied | Refused]:
        """Wait until what was exchanged last is durable, where `answers` say that it is not yet.

        A shard that lost it is sent it again: its slot must not have been overwritten.
        """
        settled = list(answers)
        for index, (answer, request) in enumerate(zip(answers, self._exchanged, strict=True)):
            if isinstance(answer, Applied) and not answer.durable:
                reply = request[0].receive(*request[1:], None)
                if reply["op"] != "durable":
                    settled[index] = _answer(reply)
        return settled

    def _push_requests(
        self, slot: int, pushes: Sequence[Push], **more: int
    ) -> list[tuple[ShardLink, Message, Tensor]]:
        grad = self._segment.gradients[slot]
        return [
            (
                link,
                {
                    "op": "push",
                    "slot": slot,
                    "sequence": push.sequence,
                    "fetched_version": push.fetched_version,
                    "progress": push.progress,
                    "scale": push.scale,
                    **more,
                },
                grad[part],
            )
            for link, push, part in zip(self._push_links, pushes, self._slices, strict=True)
        ]

    def _ask(
        self, requests: Sequence[tuple[ShardLink, Message, Tensor]], buffer: int | None
    ) -> Iterator[Message]:
        """Send all requests, then wait for the replies; values that come inline go to `buffer`."""
        for link, message, payload in requests:
            link.send(message, payload)
        target = None if buffer is None else self._segment.parameters[buffer]
        for (link, message, payload), part in zip(requests, self._slices, strict=True):
            yield link.receive(message, payload, None if target is None else target[part])

    def close(self) -> None:
        """Drop all connections."""
        for link in [*self._fetch_links, *self._push_links]:
            link.close()


def _answer(reply: Message) -> Applied | Refused:
    if reply["op"] == "applied":
        return Applied(
            int(reply["version"]),
            int(reply["staleness"]),
            bool(reply["duplicate"]),
            bool(reply.get("durable", True)),
        )
    return Refused(str(reply.get("error")), str(reply.get("message")))
