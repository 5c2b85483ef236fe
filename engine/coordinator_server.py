"""The coordinator's sockets: turns connections into events, one queue for all of them."""

import queue
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

from engine.config import TlsConfig
from engine.connections import accepted, listen, receive_greeting, shut
from engine.frames import Message, receive, send
from engine.tls import server_context


class Heard(NamedTuple):
    """A message from a peer that showed the run's token."""

    peer: int
    message: Message


class Lost(NamedTuple):
    """A peer's connection ended."""

    peer: int
    reason: str


class CoordinatorServer:
    """Accepts replicas and shards; `events` yields what they say, `send` answers."""

    def __init__(self, host: str, tls: TlsConfig | None = None) -> None:
        self._context = server_context(tls) if tls else None
        self.token = secrets.token_hex(16)
        self.events: queue.Queue[Heard | Lost] = queue.Queue()
        self.phase = 0  # of the run
        self._listener = listen(host)
        self._peers: dict[int, socket.socket] = {}
        self._next_peer = 1
        self._closed = False
        threading.Thread(target=self._accept, name="coordinator", daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()[:2]
        return host, port

    def next_event(self, wait_s: float) -> Heard | Lost | None:
        """What comes next, within `wait_s`; a replica of a phase that is over is sent home."""
        try:
            event = self.events.get(timeout=wait_s)
        except queue.Empty:
            return None
        if isinstance(event, Heard) and self._is_late(event.message):
            self.send(event.peer, {"op": "stop"})
            return None
        return event

    def coming(self, tick_s: float) -> Iterator[Heard | Lost]:
        """What comes within a tick; ends early, with what was waiting, once nothing more is."""
        deadline = time.monotonic() + tick_s
        while (wait_s := deadline - time.monotonic()) > 0:
            event = self.next_event(wait_s)
            if event is None:
                return
            yield event

    def _is_late(self, message: Message) -> bool:
        return message["op"] == "hello" and message.get("phase") not in (None, self.phase)

    def send(self, peer: int, message: Message) -> None:
        """Send; a peer that is gone is reported by its reader as Lost."""
        try:
            send(self._peers[peer], message)
        except (KeyError, OSError):
            return

    def drop(self, peer: int) -> None:
        """Close a peer's connection."""
        if sock := self._peers.pop(peer, None):
            shut(sock)

    def close(self) -> None:
        """Stop accepting and drop everybody."""
        self._closed = True
        shut(self._listener)
        self._listener.close()
        for peer in list(self._peers):
            self.drop(peer)

    def _accept(self) -> None:
        for sock in accepted(self._listener, self._context):
            peer, self._next_peer = self._next_peer, self._next_peer + 1
            threading.Thread(target=self._read, args=(peer, sock), daemon=True).start()

    def _read(self, peer: int, sock: socket.socket) -> None:
        reason = "connection closed"
        with sock:
            try:
                hello = receive_greeting(sock, self.token)
                self._peers[peer] = sock
                if self._closed:  # just now, and did not see this peer
                    return
                self.events.put(Heard(peer, hello))
                while True:
                    self.events.put(Heard(peer, receive(sock)))
            except OSError as error:
                reason = str(error)
            finally:
                self._peers.pop(peer, None)
                self.events.put(Lost(peer, reason))
