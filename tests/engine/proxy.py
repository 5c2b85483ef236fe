"""A network that can be told to fail: it passes connections on, in user space."""

import math
import socket
import struct
import threading
import time
from contextlib import suppress

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST


class Proxy:
    """Passes connections on to a server. What it is told applies to one direction, to the server
    or, with `replies`, back from it.
    """

    def __init__(
        self, upstream: tuple[str, int], *, delay_s: float = 0.0, bits_per_s: float = math.inf
    ) -> None:
        """Pass on everything `delay_s` later, and each connection's at so many bits a second."""
        self.replies_lost = self.bits_flipped = self.resets = 0
        self.passed = bytearray()  # to the server
        self._upstream = upstream
        self._delay_s, self._bits_per_s = delay_s, bits_per_s
        self._lose = threading.Event()
        self._flip: dict[bool, int] = {}  # direction -> bytes to pass before
        self._reset: dict[bool, int] = {}
        self._open = {False: threading.Event(), True: threading.Event()}
        self.heal()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        return self._listener.getsockname()

    def lose_next_reply(self) -> None:
        """Read the next reply and hang up instead of passing it on."""
        self._lose.set()

    def flip_a_bit_after(self, num_bytes: int, *, replies: bool = False) -> None:
        """Change one bit."""
        self._flip[replies] = num_bytes

    def reset_after(self, num_bytes: int, *, replies: bool = False) -> None:
        """Pass on so much more, then end the connection by RST on both sides."""
        self._reset[replies] = num_bytes

    def part(self, *, requests: bool = True, replies: bool = True) -> None:
        """Pass nothing on until `heal`; who sends does not notice until its window is full."""
        for direction, parted in ((False, requests), (True, replies)):
            if parted:
                self._open[direction].clear()

    def heal(self) -> None:
        for opened in self._open.values():
            opened.set()

    def hang_up(self) -> None:
        """End every connection; what has not been passed on is lost."""
        for sock in self._sockets:
            _end(sock)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        self.heal()
        for sock in self._sockets:
            _end(sock)
            sock.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._upstream)
            except OSError:  # the server has gone
                near.close()
                continue
            for sock in (near, far):
                sock.settimeout(0.05)
            self._sockets += [near, far]
            threading.Thread(target=self._pass_on, args=(near, far, False)).start()
            threading.Thread(target=self._pass_on, args=(far, near, True)).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        with suppress(OSError):  # the other direction has ended
            while data := _received(source):
                time.sleep(self._delay_s + 8 * len(data) / self._bits_per_s)
                self._open[replies].wait()
                if replies and self._lose.is_set():
                    self._lose.clear()
                    self.replies_lost += 1
                    break
                data = self._flipped(data, replies)
                if (cut := self._until_reset(data, replies)) is not None:
                    _send(sink, data[:cut])
                    for sock in (source, sink):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                    break
                if not replies:
                    self.passed += data
                _send(sink, data)
        self._open[replies].wait()  # that a connection has ended does not get through either
        for sock in (source, sink):
            _end(sock)

    def _flipped(self, data: bytes, replies: bool) -> bytes:
        if (at := _due(self._flip, data, replies)) is None:
            return data
        self.bits_flipped += 1
        return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]

    def _until_reset(self, data: bytes, replies: bool) -> int | None:
        at = _due(self._reset, data, replies)
        self.resets += at is not None
        return at


def _received(sock: socket.socket) -> bytes:
    """What comes next. Never waits for long: while a thread is in recv(), close() sends no RST."""
    while True:
        with suppress(TimeoutError):
            return sock.recv(65_536)


def _send(sock: socket.socket, data: bytes) -> None:
    while data:
        with suppress(TimeoutError):
            data = data[sock.send(data) :]


def _due(countdowns: dict[bool, int], data: bytes, replies: bool) -> int | None:
    """Where in `data` the event of this direction is due, if it is."""
    if replies not in countdowns:
        return None
    if (at := countdowns.pop(replies)) < len(data):
        return at
    countdowns[replies] = at - len(data)
    return None


def _end(sock: socket.socket) -> None:
    """End a connection and wake whoever waits on it."""
    with suppress(OSError):
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == _RESET:
            sock.close()
        else:
            sock.shutdown(socket.SHUT_RDWR)
