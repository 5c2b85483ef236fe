"""A role's connection to the coordinator, with heartbeats of its own."""

import os
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from engine.config import TlsConfig
from engine.connections import connect, shut
from engine.frames import Message, receive, send
from engine.link import CONNECT_TIMEOUT_S


class CoordinatorLink:
    """Says hello, sends a heartbeat every interval, and is safe to send on from any thread."""

    def __init__(
        self,
        address: tuple[str, int],
        token: str,
        role: str,
        index: int,
        worker: str,
        heartbeat_interval_s: float,
        tls: TlsConfig | None = None,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Connect and say hello; `more` is what it tells beside who this is."""
        self._sock = connect(address, CONNECT_TIMEOUT_S, tls)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._interval_s = heartbeat_interval_s
        identity = {"role": role, "index": index, "pid": os.getpid(), "worker": worker}
        self.send("hello", token=token, **identity, **more)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def send(self, op: str, **fields: Any) -> None:
        """Send one message; ConnectionError when the coordinator is gone."""
        with self._lock:
            send(self._sock, {"op": op, **fields})

    def receive(self) -> Message:
        """The next message; PeerGoneError when the coordinator is gone."""
        return receive(self._sock)

    def close(self) -> None:
        """Stop the heartbeats and hang up."""
        self._closed.set()
        shut(self._sock)
        self._sock.close()

    def _beat(self) -> None:
        while not self._closed.wait(self._interval_s):
            try:
                self.send("heartbeat")
            except OSError:
                return
