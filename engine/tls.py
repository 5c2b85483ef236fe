"""TLS on our own sockets: both sides show a certificate that the cluster's own CA has signed.

Host names are not compared, as in Dask: the CA is the cluster's alone, and workers are known by
address. What the certificate proves is that its holder belongs to the cluster.
"""

import select
import socket
import ssl
import threading
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

from engine.config import TlsConfig

T = TypeVar("T")
#: Bytes that are encrypted at a time: four records.
_PIECE = 1 << 16


class TlsError(ConnectionError):
    """The connection is of no more use; another attempt may succeed."""


class UntrustedPeerError(Exception):
    """The server's certificate is not one of our CA, or not valid now: no attempt will succeed."""


class TlsSocket(ssl.SSLSocket):
    """Made by a context of `server_context` or `client_context`, without handshake.

    One thread may receive while another sends: OpenSSL forbids both at once, so each operation
    takes a lock and never waits for the network while it holds it.
    """

    _limit_s: float | None = None

    def settimeout(self, value: float | None) -> None:
        """As of any socket; the kernel's own is set never to wait."""
        super().settimeout(0.0)
        self._limit_s = value

    def do_handshake(self, block: bool = False) -> None:
        """Check each other's certificates.

        Raises:
            UntrustedPeerError: the peer's is not trusted.
            TlsError: the peer speaks no TLS, or does not trust ours.
        """
        self._lock = threading.Lock()
        shake_hands, limit_s = super().do_handshake, self._limit_s

        def attempt() -> None:
            try:
                shake_hands()
            finally:  # which sets the limit to that of the kernel's socket
                self._limit_s = limit_s

        self._carry_out(attempt)

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        """Receive at most as much as `buffer` holds; 0 at the end."""
        receive = super().recv_into
        return self._carry_out(lambda: receive(buffer))

    def sendall(self, data: Any, flags: int = 0) -> None:
        """Send all of it; by one thread at a time."""
        send, view = super().send, memoryview(data)
        while len(view):
            piece = view[:_PIECE]
            view = view[self._carry_out(lambda piece=piece: send(piece)) :]  # type: ignore[misc]

    def shutdown(self, how: int) -> None:
        """End the connection below TLS, which wakes who waits on it."""
        socket.socket.shutdown(self, how)

    def _carry_out(self, operation: Callable[[], T]) -> T:
        while True:
            try:
                with self._lock:
                    return operation()
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except ssl.SSLCertVerificationError as error:
                raise UntrustedPeerError(f"certificate refused: {error.verify_message}") from error
            except ssl.SSLError as error:
                raise TlsError(f"TLS: {error.reason or error}") from error

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self, event)
        if not poll.poll(None if self._limit_s is None else self._limit_s * 1000):
            raise TimeoutError(f"nothing happened within {self._limit_s} s")


@cache
def server_context(tls: TlsConfig) -> ssl.SSLContext:
    """For those who accept connections; ValueError if a file cannot be used."""
    return _context(tls, ssl.PROTOCOL_TLS_SERVER)


@cache
def client_context(tls: TlsConfig) -> ssl.SSLContext:
    """For those who connect; ValueError if a file cannot be used."""
    return _context(tls, ssl.PROTOCOL_TLS_CLIENT)


def _context(tls: TlsConfig, protocol: int) -> ssl.SSLContext:
    check_files(tls)
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.sslsocket_class = TlsSocket
    try:
        context.load_verify_locations(tls.ca_file)
        context.load_cert_chain(tls.certificate_file, tls.key_file, _no_password)
    except (ssl.SSLError, ValueError) as error:
        raise ValueError(
            f"TLS files {tls.ca_file}, {tls.certificate_file}, {tls.key_file}: {error}"
        ) from None
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a password, readable by you alone")


def check_files(tls: TlsConfig) -> None:
    """Refuse files that are missing, and a key that others may read: ValueError."""
    for name in ("ca_file", "certificate_file", "key_file"):
        if not (path := getattr(tls, name)).is_file():
            raise ValueError(f"cluster.tls.{name}={path}: there is no such file")
    if (mode := tls.key_file.stat().st_mode & 0o777) & 0o077:
        raise ValueError(
            f"cluster.tls.key_file={tls.key_file} has mode {mode:o}, so others may read the key: "
            f"chmod 600 {tls.key_file}"
        )
