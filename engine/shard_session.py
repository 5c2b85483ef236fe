"""One replica's connection to a shard, after its hello: it answers fetches and pushes."""

import secrets
import socket
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine import memory
from engine.frames import Message, ProtocolError, send
from engine.ledger import Progress
from engine.outgoing import Outgoing
from engine.push import Push, PushRefusedError
from engine.squares import Squares
from engine.state import Location
from engine.tls import TlsSocket

if TYPE_CHECKING:
    from engine.endpoint import ShardEndpoint


class Session:
    """One replica's connection, after its hello."""

    inbox: memoryview | None = None

    def __init__(
        self, endpoint: "ShardEndpoint", sock: socket.socket, hello: Message, segment: Any
    ) -> None:
        self.endpoint = endpoint
        self.place = endpoint.place
        self.sock = sock
        self.replica, self.incarnation = int(hello["replica"]), int(hello["incarnation"])
        self.segment = segment

    def answer(self, message: Message) -> None:
        match message["op"]:
            case "ping":
                send(self.sock, {"op": "pong"})
            case "fetch":
                self.fetch(message)
            case "push":
                self.push(message)
            case "stage":
                self.stage(message)
            case op:
                raise ProtocolError(f"unknown request {op!r}")

    def stage(self, message: Message) -> None:
        """Keep a gradient slot that this host cannot map; where it can, nothing is sent."""
        grad, _ = self.gradient(message)
        with self.endpoint.lock:
            self.endpoint.named_vectors.stage(str(message["name"]), grad)
        send(self.sock, {"op": "staged"})

    def fetch(self, message: Message) -> None:
        with self.endpoint.lock:
            version = self.take_values(message)
        self.send_with_values({"op": "fetched", "version": version})

    def take_values(self, message: Message) -> int:
        """Fix the slice as it is now, for `send_with_values`, and return its version.

        The caller holds the shard's lock.
        """
        raise NotImplementedError

    def send_with_values(self, reply: Message) -> None:
        """Send a reply to a request that `take_values` was called for."""
        send(self.sock, reply)

    def gradient(self, message: Message) -> tuple[Tensor, Location]:
        raise NotImplementedError

    def arrived(self, num_bytes: int) -> None:
        """So much of a request's payload lies in the inbox by now."""

    @property
    def squares(self) -> float | None:
        """The sum of the squares of the gradient that arrived last; None: nobody formed it."""
        return None

    def close(self) -> None:
        """Release what the session holds."""

    def push(self, message: Message) -> None:
        push = Push(
            self.replica,
            self.incarnation,
            int(message["sequence"]),
            int(message["fetched_version"]),
            Progress(*map(int, message["progress"])),
            float(message["scale"]),
        )
        grad, location = self.gradient(message)
        fetches = "buffer" in message
        with self.endpoint.lock:
            self.endpoint.gate.pass_through(push[:2], push.sequence)
            reply = self._applied(push, grad, location)
            self.endpoint.gate.handled(push[:2], push.sequence)
            if fetches:
                reply["fetched_version"] = self.take_values(message)
            end = self.endpoint.log.written if self.endpoint.log else 0
        deferred = self.endpoint.log is not None and reply["op"] != "refused"
        try:
            if fetches:  # compute goes on with them while the disk is busy
                self.send_with_values({**reply, "durable": False} if deferred else reply)
                reply = {"op": "durable"}
        finally:  # the gradient goes with the session, and the log has no other
            if self.endpoint.log and deferred:
                self.endpoint.log.wait(end)
        if deferred or not fetches:
            send(self.sock, reply)

    def _applied(self, push: Push, grad: Tensor, location: Location) -> Message:
        self.endpoint.preserve()
        try:
            applied = self.endpoint.shard.push(push, grad, location, self.squares)
            return {"op": "applied", **applied._asdict()}
        except PushRefusedError as error:
            return {"op": "refused", "error": type(error).__name__, "message": str(error)}


class SharedSession(Session):
    """Same host: vectors lie in the replica's memory file, only messages use the socket."""

    def take_values(self, message: Message) -> int:
        target = self.segment.parameters[int(message["buffer"])]
        first, count = self.place.first, self.place.count
        return self.endpoint.copy(message, target[first : first + count])

    def gradient(self, message: Message) -> tuple[Tensor, Location]:
        slot, first, count = int(message["slot"]), self.place.first, self.place.count
        grad = self.segment.gradients[slot][first : first + count]
        return grad, self.segment.location(slot, first)


class SocketSession(Session):
    """Another host: vectors follow the messages, into and out of memory kept for them."""

    def __init__(
        self, endpoint: "ShardEndpoint", sock: socket.socket, hello: Message, segment: Any
    ) -> None:
        super().__init__(endpoint, sock, hello, segment)
        # The gradient lands in a memory file, so that a successor can finish its application.
        self._path = endpoint.folder / f"inbox-{endpoint.index:02d}-{secrets.token_hex(8)}"
        place = self.place
        self._map = memory.create(self._path, place.count * place.dtype.itemsize)
        self.inbox = memoryview(self._map)
        self._grad = torch.frombuffer(self._map, dtype=place.dtype, count=place.count)
        self._squares = Squares(self._grad)
        self._outgoing = Outgoing(place.count, place.dtype)

    def take_values(self, message: Message) -> int:
        # Nobody tells when a named vector changes, and TLS takes no piece without waiting.
        if "vector" in message or isinstance(self.sock, TlsSocket):
            return self.endpoint.copy(message, self._outgoing.copied())
        return self.endpoint.lend(self._outgoing)

    def send_with_values(self, reply: Message) -> None:
        try:
            self._outgoing.send(self.sock, reply, self.endpoint.shard.look)
        finally:
            self.endpoint.unlend(self._outgoing)

    def gradient(self, message: Message) -> tuple[Tensor, Location]:
        return self._grad, Location(str(self._path), 0)

    def arrived(self, num_bytes: int) -> None:
        self._squares.advance(num_bytes)

    @property
    def squares(self) -> float | None:
        return self._squares.total

    def close(self) -> None:
        memory.remove(self._path)
