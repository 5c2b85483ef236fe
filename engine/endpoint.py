"""Serves one parameter shard to replicas over sockets: a thread for each connection."""

import logging
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from engine.config import TlsConfig
from engine.connections import accepted, is_token, listen, receive_greeting, shut
from engine.frames import DamagedFrameError, Message, ProtocolError, receive, send
from engine.gate import Gate
from engine.outgoing import Outgoing
from engine.push import FencedShardError
from engine.push_log import LogFailedError, PushLog
from engine.segment import Segment
from engine.shard import ParameterShard
from engine.shard_session import Session, SharedSession, SocketSession
from engine.tls import server_context

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
        has_room = log.has_room if log else None
        self.gate = Gate(self.lock, shard.sequences(), has_room, shard.ended())
        self._vectors = vectors
        self.place = place
        self._token = token
        self.folder = folder
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
        # MKL counts by thread: a new one would sum squares on all cores, and spin on them after.
        torch.set_num_threads(torch.get_num_threads())
        try:
            with sock:
                session = self._greet(sock)
                try:
                    while True:
                        session.answer(receive(sock, session.inbox, session.arrived))
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

    def _greet(self, sock: socket.socket) -> Session:
        hello = receive_greeting(sock, self._token)
        if hello["op"] != "hello" or hello.get("size") != self.place.size:
            message = f"replica has {hello.get('size')} parameters, shard expects {self.place.size}"
            send(sock, {"op": "refused", "error": "LayoutMismatch", "message": message})
            raise ProtocolError(message)
        if (wanted := hello.get("shard", self.index)) != self.index:
            message = f"replica wants shard {wanted}, this is shard {self.index}"
            send(sock, {"op": "refused", "error": "WrongShard", "message": message})
            raise ProtocolError(message)
        segment = _share(hello, self.place)
        session_type = SharedSession if segment else SocketSession
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
