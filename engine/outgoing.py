"""Sends a slice of the parameters as it was at one moment, while pushes go on changing it.

The bytes go from the shard's own memory to the kernel, without a copy between. A push that comes
in the middle first copies what has not been sent yet:

1. With the shard's lock held a session calls `begin`.
2. Without it, it sends piece by piece.
3. Another session, with the shard's lock held, calls `preserve` and then changes the slice.
4. The first session goes on with the copy.

Nobody waits for a slow receiver: a piece is what the kernel takes at once.
"""

import select
import socket
import threading
from collections.abc import Callable

import torch
from isal.isal_zlib import crc32
from torch import Tensor

from engine.frames import BLOCK, Message, as_bytes, send_check, send_message


class Outgoing:
    """One connection's slice on its way."""

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        self._count, self._dtype = count, dtype
        self._num_bytes = count * dtype.itemsize
        self._kept: Tensor | None = None  # made when it is needed first
        self._source = memoryview(b"")
        self._sent = 0  # bytes
        self._live = False  # the source is the shard's memory
        self._lock = threading.Lock()  # held while bytes are read
        self._undisturbed = threading.Event()
        self._undisturbed.set()

    def begin(self, values: Tensor) -> None:
        """Send from `values`, shape (count,), until `preserve` is called."""
        self._source, self._sent, self._live = as_bytes(values), 0, True

    def copied(self) -> Tensor:
        """Memory of our own, shape (count,): send what the caller puts there."""
        if self._kept is None:
            self._kept = torch.empty(self._count, dtype=self._dtype)
        self._source, self._sent, self._live = as_bytes(self._kept), 0, False
        return self._kept

    def preserve(self) -> None:
        """Copy what has not been sent yet: the caller is about to change it."""
        self._undisturbed.clear()  # else the sender would take its lock again before we have it
        try:
            with self._lock:
                if self._live:
                    self._copy_rest()
        finally:
            self._undisturbed.set()

    def send(self, sock: socket.socket, message: Message, confirm: Callable[[], object]) -> None:
        """Send a frame with the slice as its payload.

        Args:
            confirm: called when everything has been read, before the frame is complete; raises
                if somebody may have changed it.
        """
        send_message(sock, message, self._num_bytes)
        check = 0
        for start in range(0, self._num_bytes, BLOCK):
            check = self._send_block(sock, start, min(start + BLOCK, self._num_bytes), check)
        confirm()
        send_check(sock, check)

    def _send_block(self, sock: socket.socket, start: int, end: int, check: int) -> int:
        with self._lock:
            check = crc32(self._source[start:end], check)
        if not self._live:
            sock.sendall(self._source[start:end])
            return check
        while self._sent < end:
            self._undisturbed.wait()
            with self._lock:
                count = _send_at_once(sock, self._source[self._sent : end])
                self._sent += count
            if not count:
                _wait_until_writable(sock)
        return check

    def _copy_rest(self) -> None:
        live, sent = torch.frombuffer(self._source, dtype=torch.uint8), self._sent
        self.copied().view(torch.uint8)[sent:].copy_(live[sent:])
        self._sent = sent


def _send_at_once(sock: socket.socket, piece: memoryview) -> int:
    """Hand to the kernel what it has room for; return the number of bytes."""
    try:
        return sock.send(piece, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0


def _wait_until_writable(sock: socket.socket) -> None:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll()
