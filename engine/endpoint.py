"""Serves one parameter shard to replicas over sockets: a thread for each connection."""

import logging
import secrets
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engine import memory
from engine.config import TlsConfig
from engine.frames import (
    DamagedFrameError,
    Message,
    ProtocolError,
    accepted,
    is_token,
    listen,
    receive,
    receive_greeting,
    send,
    shut,
)
from engine.gate import Gate
from engine.ledger import Progress
from engine.outgoing import Outgoing
from engine.push import FencedShardError, Push, PushRefusedError
from engine.push_log import LogFailedError, PushLog
from engine.segment import Segment
from engine.shard import ParameterShard
from engine.state import Location
from engine.tls import TlsSocket, server_context

log = logging.getLogger(__name__)
#: A session that hangs in something else than its socket is not waited for.
_CLOSE_S = 2.0


@dataclass(frozen=True)
class Place:
    """Where this shard's slice lies in the whole vector of P = `size` elements."""

    first: int
    count: int
    size: int
    dtype: torch.dtype


class NamedVectors(Protocol):
    """The shard's slices of Sandblaster's vectors."""

    def fetch(self, name: str, out: Tensor) -> None:
        """Copy the slice of a vector into `out`, shape (count,)."""
        ...

    def stage(self, name: str, grad: Tensor) -> None:
        """Keep a replica's gradient slot, shape (count,), under the slot's name."""
        ...


class ShardEndpoint:
    """Accepts replicas and answers fetches and pushes; `lock` guards the shard."""

    def __init__(
        self,
        index: int,
        shard: ParameterShard,
        place: Place,
        host: str,
        token: str,
        folder: Path,
        vectors: NamedVectors | None = None,
        log: PushLog | None = None,
        tls: TlsConfig | None = None,
    ) -> None:
        """Start serving at once.

        Args:
            index: number of the shard, which names its files.
            token: the run's secret; a connection that does not show it is closed.
            folder: for the memory files of connections that share none with us.
            vectors: those that Sandblaster's replicas fetch and stage; None: there are none.
            log: on disk, to be waited for before a push is acknowledged; None: memory suffices.
            tls: whom to trust; None: whoever shows the token, on loopback only.
        """
        self.index = index
        self.shard = shard
        self.lock = threading.Lock()
        self.log = log
        self.gate = Gate(self.lock, shard.sequences(), log.has_room if log else None)
        self._vectors = vectors
        self._place = place
        self._token = token
        self._folder = folder
        self._context = server_context(tls) if tls else None
        self._listener = listen(host)
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._outgoing: set[Outgoing] = set()
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()[:2]
        return host, port

    def copy(self, message: Message, out: Tensor) -> int:
        """Copy what `message` asks for into `out`; return the version of the parameters.

        The caller holds the lock.
        """
        if name := message.get("vector"):
            self.named_vectors.fetch(str(name), out)
            return self.shard.version
        return self.shard.fetch(out)

    @property
    def named_vectors(self) -> NamedVectors:
        """Sandblaster's vectors; ProtocolError if this shard has none."""
        if self._vectors is None:
            raise ProtocolError("this shard serves the parameters only, no named vectors")
        return self._vectors

    def lend(self, outgoing: Outgoing) -> int:
        """Have `outgoing` send the parameters as they are now; return their version.

        The caller holds the lock.
        """
        values, version = self.shard.look()
        outgoing.begin(values)
        self._outgoing.add(outgoing)
        return version

    def unlend(self, outgoing: Outgoing) -> None:
        """It has been sent, or never will be."""
        self._outgoing.discard(outgoing)

    def preserve(self) -> None:
        """The parameters are about to change: whoever still sends them gets a copy of the rest.

        The caller holds the lock.
        """
        for outgoing in list(self._outgoing):
            outgoing.preserve()

    def close(self) -> None:
        """Stop accepting, drop every connection and wait for their threads.

        A thread of ours that came back from torch while the interpreter ends would abort the
        process ("terminate called without an active exception").
        """
        shut(self._listener)
        self._listener.close()
        for sock in list(self._connections):
            shut(sock)
        for thread in self._threads:
            thread.join(_CLOSE_S)

    def _accept(self) -> None:
        for sock in accepted(self._listener, self._context):
            self._connections.add(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads = [*(t for t in self._threads if t.is_alive()), thread]
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            with sock:
                session = self._greet(sock)
                try:
                    while True:
                        session.answer(receive(sock, session.inbox))
                except DamagedFrameError as error:
                    log.warning("shard=%d replica=%d: %s", self.index, session.replica, error)
                    raise
                finally:
                    session.close()
        except (ConnectionError, OSError) as error:
            log.debug("replica connection ended: %s", error)
        except (FencedShardError, LogFailedError) as error:
            log.warning("%s", error)
        finally:
            self._connections.discard(sock)

    def _greet(self, sock: socket.socket) -> "_Session":
        hello = receive_greeting(sock, self._token)
        if hello["op"] != "hello" or hello.get("size") != self._place.size:
            message = (
                f"replica has {hello.get('size')} parameters, shard expects {self._place.size}"
            )
            send(sock, {"op": "refused", "error": "LayoutMismatch", "message": message})
            raise ProtocolError(message)
        if (wanted := hello.get("shard", self.index)) != self.index:
            message = f"replica wants shard {wanted}, this is shard {self.index}"
            send(sock, {"op": "refused", "error": "WrongShard", "message": message})
            raise ProtocolError(message)
        segment = _share(hello, self._place)
        session_type = _SharedSession if segment else _SocketSession
        session = session_type(self, sock, hello, segment)
        send(sock, {"op": "welcome", "shared": segment is not None, "version": self.shard.version})
        return session


def _share(hello: Message, place: Place) -> Segment | None:
    """The replica's memory file, if this host has it: the nonce inside proves it."""
    try:
        segment = Segment(Path(hello["segment"]), place.size, place.dtype, new=False)
    except (OSError, ValueError):
        return None
    return segment if is_token(hello.get("nonce"), segment.nonce) else None


class _Session:
    """One replica's connection, after its hello."""

    inbox: memoryview | None = None

    def __init__(
        self, endpoint: ShardEndpoint, sock: socket.socket, hello: Message, segment: Any
    ) -> None:
        self.endpoint = endpoint
        self.place = endpoint._place
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
            return {"op": "applied", **self.endpoint.shard.push(push, grad, location)._asdict()}
        except PushRefusedError as error:
            return {"op": "refused", "error": type(error).__name__, "message": str(error)}


class _SharedSession(_Session):
    """Same host: vectors lie in the replica's memory file, only messages use the socket."""

    def take_values(self, message: Message) -> int:
        target = self.segment.parameters[int(message["buffer"])]
        first, count = self.place.first, self.place.count
        return self.endpoint.copy(message, target[first : first + count])

    def gradient(self, message: Message) -> tuple[Tensor, Location]:
        slot, first, count = int(message["slot"]), self.place.first, self.place.count
        grad = self.segment.gradients[slot][first : first + count]
        return grad, self.segment.location(slot, first)


class _SocketSession(_Session):
    """Another host: vectors follow the messages, into and out of memory kept for them."""

    def __init__(
        self, endpoint: ShardEndpoint, sock: socket.socket, hello: Message, segment: Any
    ) -> None:
        super().__init__(endpoint, sock, hello, segment)
        # The gradient lands in a memory file, so that a successor can finish its application.
        self._path = endpoint._folder / f"inbox-{endpoint.index:02d}-{secrets.token_hex(8)}"
        place = self.place
        self._map = memory.create(self._path, place.count * place.dtype.itemsize)
        self.inbox = memoryview(self._map)
        self._grad = torch.frombuffer(self._map, dtype=place.dtype, count=place.count)
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

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
