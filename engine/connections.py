"""Connections between our processes: how they are made, accepted, and shown to be of this run."""

import errno
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

from engine.config import TlsConfig
from engine.frames import Message, ProtocolError, receive
from engine.tls import TlsError, TlsSocket, UntrustedPeerError, client_context

#: A stranger that connects and says nothing costs a thread and a descriptor for so long.
GREETING_S = 10.0
#: A peer from which no packet comes for so long is gone; whoever waits for it connects again.
GONE_S = 10
_ACCEPT_AGAIN_S = 0.1
_PASSING = {
    errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ECONNABORTED, errno.EINTR,
}  # fmt: skip
log = logging.getLogger(__name__)


def is_token(given: object, token: str) -> bool:
    """Compare in constant time; `given` is whatever a stranger wrote."""
    return secrets.compare_digest(str(given).encode(errors="replace"), token.encode())


def shut(sock: socket.socket) -> None:
    """End a connection or a listener and wake whoever waits on it, as close() alone does not."""
    with suppress(OSError):  # it had ended already
        sock.shutdown(socket.SHUT_RDWR)


def connect(
    address: tuple[str, int], timeout_s: float, tls: TlsConfig | None = None
) -> socket.socket:
    """A connection, as `_prepare` makes it; blocking without limit once it stands.

    Raises:
        OSError: it was not made within `timeout_s`.
        UntrustedPeerError: the server does not belong to our cluster.
    """
    sock = socket.create_connection(address, timeout=timeout_s)
    try:
        _prepare(sock)
        if tls:
            secure = client_context(tls).wrap_socket(sock, do_handshake_on_connect=False)
            sock = secure
            secure.do_handshake()
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return sock


def _prepare(sock: socket.socket) -> None:
    """No Nagle's delay; a peer whose host is gone is noticed, in the middle of a send too."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, GONE_S // 2)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_S * 1000)


def accepted(
    listener: socket.socket, context: ssl.SSLContext | None = None
) -> Iterator[socket.socket]:
    """Connections as they come, until the listener is closed; see `_prepare`.

    With a `context` they speak TLS, and `receive_greeting` shakes hands. A process that is out of
    file descriptors or memory tries again, as it may have some soon.
    """
    while True:
        try:
            sock, _ = listener.accept()
        except OSError as error:
            if error.errno not in _PASSING:  # closed
                return
            log.warning("a connection could not be accepted: %s", error)
            time.sleep(_ACCEPT_AGAIN_S)
            continue
        try:
            _prepare(sock)
            if context:
                sock = context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        except OSError:  # it has hung up again
            sock.close()
            continue
        yield sock


def receive_greeting(sock: socket.socket, token: str) -> Message:
    """A newcomer's first message, which must come soon and show the run's token.

    Raises:
        ProtocolError: it does not.
        OSError: nothing came in time, or the connection ended.
    """
    peer = _name(sock)
    try:
        sock.settimeout(GREETING_S)
        if isinstance(sock, TlsSocket):
            sock.do_handshake()
        hello = receive(sock)
        sock.settimeout(None)
        if not is_token(hello.get("token"), token):
            raise ProtocolError("a stranger without the run's token")
    except UntrustedPeerError as error:
        log.warning("refused peer=%s: %s", peer, error)
        raise ProtocolError(str(error)) from error
    except (ProtocolError, TlsError) as error:
        log.warning("refused peer=%s: %s", peer, error)
        raise
    return hello


def _name(sock: socket.socket) -> str:
    """The peer's address, for the log."""
    try:
        return ":".join(map(str, sock.getpeername()[:2]))
    except OSError:  # it has hung up already
        return "unknown"


def listen(host: str) -> socket.socket:
    """A listening socket on any free port of `host`: of IPv4 if it has that, else of IPv6.

    Raises:
        OSError: names `host`, which has no address or none of this machine.
    """
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
        return socket.create_server((str(address[0]), 0), family=family, backlog=256)
    except OSError as error:
        reason = f"cannot listen on cluster.host={host}: {error.strerror}"
        raise OSError(error.errno, reason) from error
