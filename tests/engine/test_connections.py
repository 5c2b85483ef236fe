"""How connections are made and accepted, and what a newcomer must say."""

import os
import resource
import socket
import threading

import pytest

from engine import connections
from engine.connections import accepted, connect, listen, receive_greeting
from engine.frames import send


def test_connections_are_made_without_nagles_delay():
    with listen("127.0.0.1") as server, connect(server.getsockname(), 5.0) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.gettimeout() is None


def test_both_ends_notice_within_seconds_that_the_other_ones_host_is_gone():
    with listen("127.0.0.1") as server, connect(server.getsockname(), 5.0) as near:
        far = next(accepted(server))
        for sock in (near, far):
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 5
        far.close()


def test_a_host_of_ipv6_alone_is_served_and_reached():
    with listen("::1") as server:
        assert server.family == socket.AF_INET6
        with connect(server.getsockname()[:2], 5.0) as sock, next(accepted(server)) as far:
            send(sock, {"op": "hello", "token": "token"})
            assert receive_greeting(far, "token")["op"] == "hello"


def test_a_name_with_both_kinds_of_address_is_served_by_ipv4(monkeypatch):
    both = [
        (family, socket.SOCK_STREAM, 6, "", (address, 0))
        for family, address in ((socket.AF_INET6, "::1"), (socket.AF_INET, "127.0.0.1"))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    with listen("both") as server:
        assert server.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1", "2001:db8::1"])
def test_a_host_that_is_not_this_one_is_named_in_the_error(host):
    with pytest.raises(OSError, match=f"cannot listen on cluster.host={host}: .+"):
        listen(host)


def test_nobody_listening_is_an_error_at_once():
    with listen("127.0.0.1") as server:
        address = server.getsockname()
    with pytest.raises(ConnectionRefusedError):
        connect(address, 5.0)


def test_a_stranger_that_says_nothing_is_cut_off(monkeypatch):
    monkeypatch.setattr(connections, "GREETING_S", 0.05)
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        receive_greeting(ours, "token")


def test_a_greeting_in_time_leaves_a_connection_that_may_be_silent(monkeypatch):
    monkeypatch.setattr(connections, "GREETING_S", 0.5)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        send(theirs, {"op": "hello", "token": "token"})
        assert receive_greeting(ours, "token")["op"] == "hello"
        assert ours.gettimeout() is None


def test_a_process_without_file_descriptors_goes_on_accepting_later(caplog):
    with listen("127.0.0.1") as listener:
        connections = accepted(listener)
        with socket.create_connection(listener.getsockname()):
            next(connections).close()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = socket.create_connection(listener.getsockname())
        free = os.dup(0)  # the lowest descriptor that is free now
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limit[1]))
        lift = threading.Timer(0.3, resource.setrlimit, (resource.RLIMIT_NOFILE, limit))
        lift.start()
        try:
            next(connections).close()
        finally:
            lift.join()
            waiting.close()
        assert "Too many open files" in caplog.text
